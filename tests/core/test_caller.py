import asyncio

import pytest

from gdo.cache import Cache
from gdo.caller import Caller
from gdo.disk import Disk
from gdo.errors import BudgetSpent, ModelUnready, RunFailed, Stopped
from gdo.ledger import Ledger
from gdo.model import Head, Reply, ReplyError, Request, Sampling
from gdo.models.fake import Fake, FakeModel
from gdo.schema import Field, Record, Scalar

HEAD = Head("chat", answer=Record((Field("x", Scalar("string")),)))


def requests(*bodies):
    return [Request(HEAD, body, Sampling()) for body in bodies]


class Unrecorded:
    def __init__(self):
        self.made = []

    def errors(self, step, failures):
        pass

    def calls(self, calls):
        self.made += calls


class Stand:
    """A caller on its own, with what it stands on."""

    def __init__(self, cache=None, answer=None, max_calls=None, max_tokens=None, **options):
        self.model = FakeModel(Fake(backend="fake", **options), answer)
        self.records = Unrecorded()
        self.ledger = Ledger(self.records, max_calls=max_calls, max_tokens=max_tokens)
        self.disk = Disk(cache)
        self.caller = Caller("m", self.model, self.disk, self.ledger, asyncio.get_running_loop())

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.caller.close()
        await self.disk.close()

    async def ask(self, *bodies):
        return [reply.text for reply in await self.replies(*bodies)]

    async def replies(self, *bodies):
        return await asyncio.to_thread(self.caller.replies, "s", requests(*bodies))


def echo(request):
    return request.body


def test_replies_come_in_the_order_of_their_requests():
    async def work():
        async with Stand(answer=echo) as stand:
            bodies = [str(i) for i in range(200)]
            assert await stand.ask(*bodies) == bodies

    asyncio.run(work())


def test_the_same_request_is_sent_once_in_a_batch():
    async def work():
        async with Stand(answer=echo) as stand:
            assert await stand.ask("a", "b", "a", "a") == ["a", "b", "a", "a"]
            assert stand.model.calls == 2

    asyncio.run(work())


@pytest.mark.parametrize("cached", [True, False])
def test_the_same_request_of_two_tasks_at_once_is_sent_once(tmp_path, cached):
    async def work():
        cache = Cache(tmp_path / "c.sqlite") if cached else None
        async with Stand(cache, echo, latency_s=0.05) as stand:
            answers = await asyncio.gather(*(stand.ask("a", "b", str(i)) for i in range(10)))
            assert answers == [["a", "b", str(i)] for i in range(10)]
            assert stand.model.calls == 12
            assert stand.ledger.step("s").calls == 12
            assert stand.ledger.step("s").cached == 18

    asyncio.run(work())


def test_a_reply_is_on_disk_before_anybody_sees_it(tmp_path):
    path = tmp_path / "c.sqlite"

    async def work():
        async with Stand(Cache(path), echo) as stand:
            for i in range(5):
                await stand.ask(f"a{i}", f"b{i}")
                other = Cache(path)
                assert len(other) == 2 * (i + 1)
                other.close()

    asyncio.run(work())


def test_a_second_run_pays_nothing(tmp_path):
    async def work():
        async with Stand(Cache(tmp_path / "c.sqlite"), echo) as stand:
            first = await stand.ask("a", "b")
        async with Stand(Cache(tmp_path / "c.sqlite"), echo) as stand:
            assert await stand.ask("b", "a") == first[::-1]
            assert stand.model.calls == 0
            assert stand.ledger.step("s").cached == 2
            assert stand.ledger.step("s").prompt_tokens == 0

    asyncio.run(work())


def test_an_error_is_told_to_every_row_and_not_kept(tmp_path):
    async def work():
        async with Stand(Cache(tmp_path / "c.sqlite"), fail_every=1, fail_with="server") as stand:
            replies = await stand.replies("a", "b", "a")
            assert [reply.error.kind for reply in replies] == ["server"] * 3
            await stand.replies("a")
            assert stand.model.calls == 3
            assert len(stand.disk.cache) == 0

    asyncio.run(work())


def test_a_spent_budget_stops_and_keeps_what_was_paid_for(tmp_path):
    async def work():
        async with Stand(Cache(tmp_path / "c.sqlite"), echo, max_calls=3) as stand:
            with pytest.raises(BudgetSpent):
                await stand.ask(*"abcdefgh")
            assert stand.model.calls == 3
            assert len(stand.disk.cache) == 3
        async with Stand(Cache(tmp_path / "c.sqlite"), echo, max_calls=5) as stand:
            assert await stand.ask(*"abcdefgh") == list("abcdefgh")
            assert stand.model.calls == 5

    asyncio.run(work())


def test_a_budget_of_tokens_stops_after_it_is_spent():
    async def work():
        async with Stand(None, echo, max_tokens=1, concurrency=1, latency_s=0.001) as stand:
            with pytest.raises(BudgetSpent):
                await stand.ask(*"abcdefgh")
            assert stand.model.calls == 1

    asyncio.run(work())


def test_what_is_cached_costs_no_budget(tmp_path):
    async def work():
        async with Stand(Cache(tmp_path / "c.sqlite"), echo) as stand:
            await stand.ask("a", "b")
        async with Stand(Cache(tmp_path / "c.sqlite"), echo, max_calls=1) as stand:
            assert await stand.ask("a", "b", "c") == ["a", "b", "c"]

    asyncio.run(work())


def test_a_stopped_caller_sends_nothing_more():
    async def work():
        async with Stand(None, echo) as stand:
            stand.caller.stopping = True
            with pytest.raises(Stopped):
                await stand.ask("a")
            assert stand.model.calls == 0

    asyncio.run(work())


class Locked(FakeModel):
    """A model whose key is refused from the third call on."""

    async def _call(self, request):
        reply = await super()._call(request)
        if self.calls < 3:
            return reply
        return Reply(error=ReplyError("refused", "the key is refused", fatal=True))


def test_a_fatal_error_ends_the_run_and_keeps_the_replies_before_it(tmp_path):
    async def work():
        async with Stand(Cache(tmp_path / "c.sqlite")) as stand:
            stand.model = stand.caller.model = Locked(Fake(backend="fake", concurrency=1, latency_s=0.001), echo)
            with pytest.raises(RunFailed, match="model 'm': the key is refused"):
                await stand.ask(*"abcdefgh")
            assert stand.model.calls == 3
            assert len(stand.disk.cache) == 2
            with pytest.raises((RunFailed, Stopped)):
                await stand.ask("z")
            assert stand.model.calls == 3

    asyncio.run(work())


class Unready(FakeModel):
    async def start(self, tell):
        raise ModelUnready("no weights")


def test_a_model_that_cannot_start_is_told_to_all_who_wait():
    async def work():
        async with Stand(None) as stand:
            stand.caller.model = Unready(Fake(backend="fake"), echo)
            told = await asyncio.gather(*(stand.ask("a", str(i)) for i in range(4)), return_exceptions=True)
            assert [type(error) for error in told] == [ModelUnready] * 4

    asyncio.run(work())


def test_no_requests_need_no_model():
    async def work():
        async with Stand(None) as stand:
            stand.caller.model = Unready(Fake(backend="fake"), echo)
            assert await stand.ask() == []

    asyncio.run(work())


def test_every_call_is_written_down():
    async def work():
        async with Stand(None, echo) as stand:
            await stand.ask("a", "b")
            assert [(call.step, call.model, call.cached, call.attempts) for call in stand.records.made] == [
                ("s", "m", False, 1)
            ] * 2
            assert all(call.prompt_tokens >= 0 and call.completion_tokens > 0 for call in stand.records.made)

    asyncio.run(work())
