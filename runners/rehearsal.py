"""A query run once with answers still unknown, to see for which inputs it comes to its prompts at all.

What stands around a subquery or a CTE may leave most of its rows aside: a LIMIT, a join, a column that nobody reads. DuckDB knows
best which; so what a prompt in there would be asked for is what DuckDB calls it for while every answer is null. Where an answer
decides what is called next, the query itself comes to more, and it is asked then.
"""

from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa

from gdo.database import is_aborted, nodes
from gdo.runners.group import Group
from gdo.runners.known import Known
from gdo.runners.sites import Site
from gdo.runners.stable import is_volatile
from gdo.runners.syntax import Tree, same


def rehearse(
    connection: duckdb.DuckDBPyConnection,
    node: Tree,
    written: Callable[[Tree], str],
    sites: Sequence[Site],
    groups: Mapping[str, Group],
) -> None:
    """Keep in mind what calls within the subqueries of a query are called for; the answers of all others are known.

    Raises:
        duckdb.Error: it fails where answers are null, and with it the transaction of the user's.
    """
    here = [groups[key] for key in {same(site.call) for site in sites}]
    heard = [group for group in here if all(site.place.node is not node for site in group.sites)]
    asks = any(group.reason for group in groups.values())
    if not heard or asks or any(is_volatile(part) or part.get("sample") for part in nodes(node)):
        return  # it would ask, or come to other rows the next time
    query = written(node)
    for group in groups.values():
        group.rehearsing = True
    for group in heard:
        group.heard = Known(pa.bool_())
    try:
        for _ in connection.sql(query).to_arrow_reader():
            pass
    except duckdb.Error:
        for group in heard:
            group.heard = None
        if is_aborted(connection):
            raise
    finally:
        for group in groups.values():
            group.rehearsing = False
