import asyncio

import pytest

from gdo.model import Head, Reply, Request, Sampling
from gdo.window import Window


def requests(count):
    return [Request(Head("chat"), str(i), Sampling()) for i in range(count)]


class Meter:
    """A call that counts how many are under way, and the pulled ones of which nobody said yet that they are safe."""

    def __init__(self, delay_s=0.0):
        self.now = self.most = 0
        self.order = []
        self.delay_s = delay_s

    async def call(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(request.body)
        await asyncio.sleep(self.delay_s)
        return Reply(text=request.body)

    async def done(self, index, reply):
        assert str(index) == reply.text
        await asyncio.sleep(self.delay_s)
        self.now -= 1


@pytest.mark.parametrize("size", [1, 3, 64])
def test_no_more_than_the_window_is_sent_and_not_yet_safe(size):
    async def work():
        meter, window = Meter(0.001), Window(size)
        await asyncio.gather(*(window.run(requests(50), meter.call, meter.done) for _ in range(4)))
        assert meter.now == 0
        assert meter.most == size
        assert len(meter.order) == 200

    asyncio.run(work())


def test_the_oldest_stream_goes_first():
    async def work():
        meter, window = Meter(0.001), Window(2)
        await asyncio.gather(*(window.run(requests(5), meter.call, meter.done) for _ in range(2)))
        assert meter.order == [*"01234", *"01234"]

    asyncio.run(work())


def test_what_others_wait_for_goes_first_whenever_it_comes():
    async def work():
        meter, window = Meter(0.001), Window(2)
        late = asyncio.create_task(window.run(requests(5), meter.call, meter.done, 7))
        await asyncio.sleep(0)
        await asyncio.gather(
            window.run([Request(Head("chat"), str(i), Sampling()) for i in range(3)], meter.call, meter.done, 1), late
        )
        assert meter.order == [*"0", *"012", *"1234"], "what was sent already is not taken back"

    asyncio.run(work())


def test_a_slow_call_does_not_hold_up_the_others():
    async def work():
        async def call(request):
            await asyncio.sleep(0.3 if request.body == "0" else 0.001)
            return Reply(text=request.body)

        order = []

        async def done(index, _):
            order.append(index)

        await Window(2).run(requests(50), call, done)
        assert order[-1] == 0
        assert sorted(order) == list(range(50))

    asyncio.run(work())


@pytest.mark.parametrize("place", ["requests", "call", "done"])
def test_what_goes_wrong_is_raised_when_the_calls_in_flight_have_ended(place):
    async def work():
        ended = []

        def given():
            for request in requests(20):
                if place == "requests" and request.body == "7":
                    raise ValueError(place)
                yield request

        async def call(request):
            await asyncio.sleep(0.001)
            if place == "call" and request.body == "7":
                raise ValueError(place)
            return Reply(text=request.body)

        async def done(index, _):
            if place == "done" and index == 7:
                raise ValueError(place)
            ended.append(index)

        window = Window(4)
        with pytest.raises(ValueError, match=place):
            await window.run(given(), call, done)
        assert len(ended) >= 7
        others = []

        async def fine(index, _):
            others.append(index)

        await window.run(requests(3), call, fine)
        assert sorted(others) == [0, 1, 2]

    asyncio.run(work())


def test_no_requests_are_answered_at_once():
    async def work():
        meter = Meter()
        await Window(3).run([], meter.call, meter.done)

    asyncio.run(work())
