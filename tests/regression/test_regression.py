"""CPython's own regression tests end under the shield as they do without it, but for what docs/regression.md explains."""

from __future__ import annotations

import pytest
from regression.images import USER, native_image, shielded_image
from regression.modules import FULL, QUICK, wanted
from regression.outcomes import differences, documented, fair, module_of, patient, run_modules

CONFIGURATIONS = [("authenticated", "root"), ("encrypted", "user")]


@pytest.fixture(scope="session", params=CONFIGURATIONS, ids=["authenticated-root", "encrypted-user"])
def runs(request, workshop, engine, containers):
    """The same modules in the native image and in a shielded one, and how they differ."""
    protection, who = request.param
    as_user = [f"--user={USER}:{USER}"] if who == "user" else []
    native, shielded = native_image(workshop, engine), shielded_image(workshop, engine, protection)

    wanted_modules, jobs = wanted()

    def both(modules):
        before = run_modules(engine.host, native, patient(modules), jobs, as_user)
        options = [*as_user, *containers.addresses()]
        return before, run_modules(engine.host, shielded, fair(before), jobs, options)

    before, after = both(wanted_modules)
    found = differences(before, after, who)
    # What only a busy machine brings about does not come twice.
    again = sorted({module_of(one.test) for one in found} & set(wanted_modules))
    if again:
        found &= differences(*both(again), who)
    return before, after, found, who


def test_every_difference_is_documented(runs):
    _, after, found, _ = runs
    rows = documented()
    unexplained = sorted(one for one in found if not any(row.covers(one) for row in rows))
    assert not unexplained, "\n".join(
        [*map(str, unexplained), *(after[module_of(one.test)].said[-4000:] for one in unexplained)]
    )


def test_every_documented_difference_of_these_modules_is_still_one(runs):
    _, _, found, who = runs
    rows = [row for row in documented() if row.who in (who, "both") and module_of(row.test) in wanted()[0]]
    assert [row for row in rows if not any(row.covers(one) for one in found)] == []


def test_at_least_forty_modules_pass_natively_and_run_real_tests(runs):
    before, after, _, _ = runs
    passed = [module for module, outcome in before.items() if outcome.ended == "0" and "passed" in outcome.tests.values()]
    assert len(passed) >= 40
    assert all("passed" in after[module].tests.values() for module in passed)
    print(f"{len(passed)} modules pass natively;", sum(len(one.tests) for one in after.values()), "tests under the shield")  # noqa: T201
    for module, outcome in sorted(before.items(), key=lambda item: -item[1].seconds)[:20]:
        print(f"{module}: {outcome.seconds} s natively, {after[module].seconds} s under the shield")  # noqa: T201


def test_a_module_is_listed_once():
    assert len(set(FULL)) == len(FULL)
    assert len(QUICK) >= 40
