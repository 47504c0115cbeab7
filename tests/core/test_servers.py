import asyncio
import time

import pytest

from gdo.servers import Pace, Servers, Throttle, backoff_s


def test_a_pace_without_a_limit_never_waits():
    async def work():
        pace = Pace(0)
        for _ in range(1000):
            await pace.take(1e9)

    started = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - started < 1


def test_a_pace_lets_a_seconds_worth_through_and_then_so_much_a_minute():
    async def work():
        pace, stamps = Pace(60 * 20), []

        async def one():
            await pace.take()
            stamps.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(40)))
        return [stamp - stamps[0] for stamp in stamps]

    stamps = asyncio.run(work())
    assert sum(stamp < 0.05 for stamp in stamps) in range(20, 24)
    assert 0.8 <= stamps[-1] <= 2.0


def test_what_was_taken_too_much_is_given_back():
    async def work():
        pace = Pace(60)
        await pace.take(100)
        pace.correct(-100)
        started = time.monotonic()
        await pace.take(1)
        return time.monotonic() - started

    assert asyncio.run(work()) < 0.5


def test_a_throttle_lets_only_so_many_in_and_in_their_order():
    async def work():
        throttle, order, most = Throttle(3), [], [0]

        async def one(number):
            await throttle.enter()
            order.append(number)
            most[0] = max(most[0], throttle.sending)
            await asyncio.sleep(0.001)
            throttle.leave()

        await asyncio.gather(*(one(i) for i in range(20)))
        return order, most[0], throttle.sending

    assert asyncio.run(work()) == (list(range(20)), 3, 0)


def test_a_refusal_cuts_once_for_all_that_was_sent_before_it_and_answers_raise_it_again():
    throttle = Throttle(64)
    sent_at = time.monotonic()
    for _ in range(10):
        throttle.refused(sent_at)
    assert throttle.limit == 44
    throttle.refused(time.monotonic())
    assert throttle.limit == 30
    for _ in range(30 + 31 + 32):
        throttle.answered()
    assert throttle.limit == 33
    for _ in range(10_000):
        throttle.answered()
    assert throttle.limit == 64


def test_a_throttle_never_shuts():
    throttle = Throttle(2)
    for _ in range(10):
        throttle.refused(time.monotonic())
    assert throttle.limit == 1


def test_the_least_busy_server_that_does_not_rest_is_asked():
    async def work():
        servers = Servers(("a", "b", "c"))
        servers.all[0].sending, servers.all[1].sending, servers.all[2].sending = 2, 0, 1
        assert (await servers.choose()).url == "b"
        servers.all[1].rest(10)
        assert (await servers.choose()).url == "c"
        for server in servers.all:
            server.rest(0.1)
        started = time.monotonic()
        assert (await servers.choose()).url in "ac"
        assert time.monotonic() - started >= 0.09

    asyncio.run(work())


@pytest.mark.parametrize("tries", [0, 1, 5, 10_000])
def test_waiting_times_double_up_to_a_bound(tries):
    drawn = [backoff_s(tries) for _ in range(100)]
    top = min(30.0, 0.25 * 2**min(tries, 20))
    assert all(top / 2 <= seconds <= top for seconds in drawn)
    assert len(set(drawn)) > 50
