from __future__ import annotations

from itertools import pairwise

from edgedns.serve.clock import Clock


class Hands:
    def __init__(self) -> None:
        self.wall = 1000.0
        self.monotonic = 5.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)

    def on(self, monotonic: float, wall: float) -> None:
        self.monotonic += monotonic
        self.wall += wall


def test_it_follows_the_wall_clock() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now == 1000.0
    hands.on(0.1, 0.1)
    clock.tick()
    assert clock.now == 1000.1
    hands.on(0.1, 3600.0)  # set forward, or woken from sleep
    clock.tick()
    assert clock.now == 4600.1


def test_a_wall_clock_set_back_slows_it_down_until_they_meet() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.on(0.0, -10.0)
    seen = [clock.now]
    for _ in range(250):
        hands.on(0.1, 0.1)
        clock.tick()
        seen.append(clock.now)
    assert all(later > earlier for earlier, later in pairwise(seen))
    assert seen[100] - seen[0] > 4.9  # time does not stand still meanwhile
    assert seen[-1] == hands.wall
