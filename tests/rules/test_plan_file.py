"""The catalogue of plans as TOML: what is read, and the explanation of each fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe import plan_catalogue
from artcafe.errors import PlansInvalid
from artcafe.rules.plan_file import parse
from artcafe.rules.plans import UNLIMITED, Limit

NUMBERS = "\n".join(f"{limit} = 7" for limit in Limit)
FILE = f'default = "free"\n[plans.free]\n[plans.free.limits]\n{NUMBERS}\n'


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(PlansInvalid) as raised:
        parse(text, "the file")
    return raised.value.faults


@given(st.dictionaries(st.sampled_from([*Limit]), st.integers(0, UNLIMITED - 1) | st.just("unlimited")))
def test_every_number_below_2_to_the_53_and_unlimited_is_read(given: Mapping[Limit, int | str]) -> None:
    numbers = {limit: given.get(limit, 7) for limit in Limit}
    lines = "\n".join(f'{limit} = "unlimited"' if n == "unlimited" else f"{limit} = {n}" for limit, n in numbers.items())
    (plan,) = parse(f'default = "free"\n[plans.free]\n[plans.free.limits]\n{lines}\n', "the file")
    assert plan.limits == {limit: UNLIMITED if n == "unlimited" else n for limit, n in numbers.items()}


def test_plan_has_its_name_as_title_and_is_not_self_serve_unless_the_file_says_so() -> None:
    (plan,) = parse(FILE, "the file")
    assert (plan.name, plan.title, plan.description, plan.self_serve) == ("free", "free", "", False)
    texts = '[plans.free]\ntitle = "Gratis"\ndescription = "For all."\nself_serve = true\n'
    (plan,) = parse(FILE.replace("[plans.free]\n", texts), "the file")
    assert (plan.name, plan.title, plan.description, plan.self_serve) == ("free", "Gratis", "For all.", True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has no plan"),
        ("plans = 3", "it has no plan"),
        ("default = ", "it is not TOML: Invalid value"),
        (FILE.replace('default = "free"', ""), "default is missing"),
        (FILE.replace('"free"', '"best"'), "default is 'best', but there is no [plans.best]; name one of free"),
        (f"currency = 1\n{FILE}", "currency is unknown"),
        (FILE.replace("[plans.free]\n", "[plans.free]\nprice = 3\n"), "plans.free.price is unknown"),
        (
            FILE.replace("[plans.free]\n", "[plans.free]\nself_serve = 1\n"),
            "plans.free.self_serve must be true or false",
        ),
        (FILE.replace("[plans.free]\n", "[plans.free]\ntitle = 3\n"), "plans.free.title must be a text"),
        (FILE.replace("free", "Free"), "plans.Free: a plan's name must have"),
        (f"{FILE}seats = 3\n", "plans.free.limits.seats is unknown; the limits are agents, channels"),
        (FILE.replace("hops = 7\n", ""), 'plans.free.limits.hops is missing; write a number, or "unlimited"'),
        (FILE.replace("hops = 7", "hops = -1"), "plans.free.limits.hops must not be negative; this is -1"),
        (FILE.replace("hops = 7", 'hops = "7"'), "plans.free.limits.hops must be a whole number or \"unlimited\"; this is '7'"),
        (FILE.replace("hops = 7", "hops = 7.5"), "plans.free.limits.hops must be a whole number"),
        (FILE.replace("hops = 7", "hops = true"), "plans.free.limits.hops must be a whole number"),
        (FILE.replace("hops = 7", f"hops = {2**53}"), "plans.free.limits.hops must be below 2**53"),
        (FILE.split("[plans.free.limits]", maxsplit=1)[0], "plans.free.limits is missing"),
        ('default = "free"\n[plans]\nfree = 3\n', "plans.free must be a table"),
    ],
)
def test_each_fault_is_explained_with_its_place(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


def test_example_of_the_page_is_a_catalogue() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (plan,) = parse(example, "the page")
    assert (plan.title, plan.self_serve, plan.limits[Limit.MESSAGE_BYTES]) == ("Free", True, 16_384)


def test_all_faults_are_reported_at_once() -> None:
    text = FILE.replace("hops = 7", "hops = -1").replace("agents = 7\n", "", 1).replace('"free"', '"best"')
    assert len(faults(text)) == 3


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PlansInvalid, match="it cannot be read as text"):
        plan_catalogue.read(tmp_path / "none.toml")


def test_refused_file_is_named_with_every_fault_on_a_line(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(FILE.replace("hops = 7", "hops = -1").replace('"free"', '"best"'))
    with pytest.raises(PlansInvalid) as raised:
        plan_catalogue.read(file)
    assert str(raised.value).splitlines()[0] == f"the file of plans {file} cannot be used:"
    assert sum(line.startswith("  - ") for line in str(raised.value).splitlines()) == 2
