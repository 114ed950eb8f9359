from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from artcafe.rules.rate_window import LENT_SHARE, SLOT_S, SLOTS, WINDOW_S, Monthly, RateWindow


@dataclass
class Fleet:
    """Servers with one window each, and the counters they share. Nothing is lost."""

    limit: int
    servers: int = 1
    slot: int = 1000
    counters: Counter[int] = field(default_factory=Counter)
    windows: list[RateWindow] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.windows = [RateWindow(self.limit, self.slot) for _ in range(self.servers)]

    def reserve(self, window: RateWindow, waiting: int) -> None:
        is_alone = self.servers == 1
        window.learn({slot: self.counters[slot] for slot in window.slots_to_read(is_alone=is_alone)})
        amount = window.wanted(waiting, self.servers)
        if amount:
            self.counters[self.slot] += amount
            self.counters[self.slot] -= window.grant(amount, self.counters[self.slot])

    def use(self, server: int, attempts: int, *, may_lend: bool = False) -> int:
        """Try to use units on one server, and return how many were granted."""
        window, granted = self.windows[server], 0
        for at in range(attempts):
            if not window.tokens:
                if may_lend and window.can_lend(self.servers):
                    window.charge()
                    granted += 1
                    continue
                if not window.is_closed:
                    self.reserve(window, attempts - at)
            if window.tokens:
                window.tokens -= 1
                granted += 1
        self.used[self.slot] += granted
        return granted

    def advance(self, slots: int = 1) -> None:
        for _ in range(slots):
            for window in self.windows:
                self.counters[self.slot] -= window.advance(self.slot + 1)
            self.slot += 1

    def most_in_a_minute(self) -> int:
        return max(sum(self.used[slot] for slot in range(end - SLOTS, end + 1)) for end in range(1000, self.slot + 1))


def test_small_limit_is_exact_on_one_server() -> None:
    fleet = Fleet(limit=3)
    assert [fleet.use(0, 1) for _ in range(5)] == [1, 1, 1, 0, 0]


@given(st.integers(0, 40), st.integers(1, 4), st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_servers_together_grant_exactly_the_limit_if_each_asks_for_all(limit: int, servers: int, attempts: list[int]) -> None:
    fleet = Fleet(limit, servers)
    granted = sum(fleet.use(at % servers, count) for at, count in enumerate(attempts))
    unspent = sum(window.tokens for window in fleet.windows)
    assert granted + unspent == min(limit, sum(attempts) + unspent)
    assert unspent <= limit // 16


@settings(max_examples=200)
@given(
    limit=st.integers(1, 2000),
    servers=st.integers(1, 3),
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 500), st.integers(0, 12)), min_size=1, max_size=40),
    may_lend=st.booleans(),
)
def test_no_minute_sees_more_than_the_limit_and_what_was_lent(
    limit: int, servers: int, steps: list[tuple[int, int, int]], may_lend: bool
) -> None:
    fleet = Fleet(limit, servers)
    for server, attempts, slots in steps:
        fleet.use(server % servers, attempts, may_lend=may_lend)
        fleet.advance(slots)
    lent = limit // LENT_SHARE if may_lend else 0
    assert fleet.most_in_a_minute() <= limit + lent


def test_burst_at_the_end_of_a_minute_leaves_nothing_for_the_next_until_it_has_left_the_window() -> None:
    fleet = Fleet(limit=100, servers=2)
    assert fleet.use(0, 500) + fleet.use(1, 500) == 100
    for _ in range(SLOTS):
        fleet.advance()
        assert fleet.use(0, 500) == fleet.use(1, 500) == 0
    fleet.advance()
    assert fleet.use(0, 500) + fleet.use(1, 500) == 100


def test_flood_gets_at_least_nine_tenths_of_the_limit_in_the_long_run() -> None:
    fleet, minutes = Fleet(limit=600, servers=2), 30
    granted = 0
    for _ in range(minutes * SLOTS):
        granted += fleet.use(0, 700) + fleet.use(1, 700)
        fleet.advance()
    assert 0.9 * 600 * minutes <= granted <= 600 * minutes + 600


def test_steady_use_below_the_limit_is_never_refused() -> None:
    fleet = Fleet(limit=600, servers=2)
    for _ in range(100):
        assert fleet.use(0, 13) == 13
        assert fleet.use(1, 13) == 13
        fleet.advance()


def test_unspent_units_are_given_back_at_the_end_of_the_slot() -> None:
    fleet = Fleet(limit=6400, servers=2)
    fleet.use(0, 10)
    assert fleet.windows[0].tokens > 0
    fleet.advance()
    assert fleet.counters[1000] == 10


def test_usage_does_not_count_reserved_units_and_names_when_the_oldest_use_ends() -> None:
    fleet = Fleet(limit=6400, servers=2)
    fleet.use(0, 10)
    fleet.advance(2)
    fleet.use(0, 5)
    usage = fleet.windows[0].usage(now=1002.5 * SLOT_S)
    assert (usage.limit, usage.used, usage.left, usage.percent) == (6400, 15, 6385, 0)
    assert usage.resets_at == 1000 * SLOT_S + WINDOW_S + SLOT_S


def test_lowered_limit_refuses_and_a_raised_one_grants() -> None:
    fleet = Fleet(limit=10)
    fleet.use(0, 5)
    fleet.windows[0].limit = 3
    fleet.advance()
    assert fleet.use(0, 5) == 0
    fleet.windows[0].limit = 7
    fleet.advance()
    assert fleet.use(0, 5) == 2


def test_month_counts_the_metered_messages_and_those_of_later_slots() -> None:
    fleet = Fleet(limit=1000)
    fleet.use(0, 10)
    fleet.advance(2)
    window = fleet.windows[0]
    window.monthly = Monthly(limit=50, metered=30, as_of=1000 * SLOT_S, resets_at=9e9)
    assert fleet.use(0, 50) == 10
    usage = window.monthly_usage()
    assert usage is not None
    assert (usage.used, usage.left, usage.percent, usage.resets_at) == (50, 0, 100, 9e9)


def test_month_forgets_slots_that_the_meter_has_counted() -> None:
    fleet = Fleet(limit=1000)
    fleet.use(0, 10)
    fleet.advance(2)
    window = fleet.windows[0]
    window.monthly = Monthly(limit=50, metered=40, as_of=1001 * SLOT_S, resets_at=9e9)
    assert fleet.use(0, 50) == 10


def test_month_keeps_slots_until_the_meter_has_counted_them() -> None:
    fleet = Fleet(limit=1000)
    window = fleet.windows[0]
    window.monthly = Monthly(limit=50, metered=0, as_of=1000 * SLOT_S, resets_at=9e9)
    fleet.use(0, 45)
    fleet.advance(3 * SLOTS)
    assert fleet.use(0, 50) == 5


def test_server_alone_applies_the_limit_to_its_own_use() -> None:
    window = RateWindow(10, 1000)
    window.grant_alone(7)
    assert (window.tokens, window.is_closed) == (7, False)
    window.tokens = 0
    window.grant_alone(7)
    assert (window.tokens, window.is_closed) == (3, True)


def test_idle_window_is_forgotten_after_a_minute() -> None:
    fleet = Fleet(limit=10)
    fleet.use(0, 5)
    fleet.advance(SLOTS)
    assert not fleet.windows[0].is_idle()
    fleet.advance()
    assert fleet.windows[0].is_idle()


def test_units_spent_before_their_reservation_count_in_the_next_slot_too() -> None:
    window = RateWindow(1000, 10)
    window.learn({})
    for _ in range(3):
        assert window.can_lend(1)
        window.charge()
    window.advance(11)
    amount = window.wanted(0, 1)
    window.grant(amount, amount)

    assert window.usage(11 * SLOT_S).used == 3
    assert window.unspent == amount - 3
