"""compare.html: a comparison of two policies as one page, the verdict first."""

from evaluation import page, plots
from evaluation.comparison import amount
from evaluation.page import text
from evaluation.verdict import probability

MOST_CASES = 200  # that are listed
_APART = ("difference", "low", "high")


def html_comparison(found: dict) -> str:
    """The whole page. `found`: see `evaluation.comparison.compared`."""
    what = f"suite {found['suite']}" if found["suite"] else found["scenario"]
    names = [found["a"]["name"], found["b"]["name"]]
    parts = [
        page.headline(
            f"{what} · the same {found['cases']} cases · A: {names[0]} · B: {names[1]}",
            found["sentence"],
            found["sentences"],
        ),
        page.grid(_rates(found, names), "foremost"),
        page.section("Metrics", _metrics(found, names), _METRICS),
        page.section("Families", _families(found, names), "Cases with a collision."),
        page.section("Cases that tell them apart", _apart(found), "Cases in which one of the two alone collided."),
        page.section("How the results were made", _provenance(found)),
    ]
    return page.page(f"{names[1]} against {names[0]}", parts)


_METRICS = (
    "Means and rates over the cases in which a metric means something for both. The first ones decide the verdict; "
    "they and the others get Holm's correction apart from each other. Rates: McNemar's exact test, Newcombe's "
    "interval. Means: permutation test of the differences, bootstrap interval."
)


def _rates(found: dict, names: list[str]) -> list[str]:
    """Plots of the rates that decide, each policy's with its interval."""
    cards = []
    for metric in found["metrics"].values():
        if metric["deciding"] and metric["kind"] == "rate":
            plot = plots.intervals(names, [metric["rates"][key] for key in ("a", "b")])
            cards.append(page.card(f"{text(metric['title'])}, with 95 % interval", plot))
    return cards


def _metrics(found: dict, names: list[str]) -> str:
    head = ["Metric", *_heads(names), "B - A<small>95 % interval</small>", "p<small>corrected</small>"]
    head += ["B above, below<small>equal</small>", "B is"]
    rows = []
    for deciding in (True, False):
        for name, metric in found["metrics"].items():
            if metric["deciding"] != deciding:
                continue
            apart, low, high = (amount(metric, name, metric[key], signed=True, unit=False) for key in _APART)
            verdict = metric["verdict"]
            kind = {"better": "good", "worse": "bad"}.get(verdict, "")
            title = f"<strong>{text(metric['title'])}</strong>" if deciding else text(metric["title"])
            rows.append(
                [
                    title,
                    text(amount(metric, name, metric["a"])),
                    text(amount(metric, name, metric["b"])),
                    f"{apart}<small>{low} to {high}</small>",
                    text(probability(metric["p_corrected"]).removeprefix("p ").removeprefix("= ")),
                    f"{metric['higher']}, {metric['lower']}<small>{metric['equal']}</small>",
                    f'<strong class="{kind}">{verdict}</strong>' if kind else verdict,
                ]
            )
    return page.wide_table(head, rows)


def _heads(names: list[str]) -> list[str]:
    return [f'<i class="key s{k}"></i>{text(name)}' for k, name in enumerate(names)]


def _families(found: dict, names: list[str]) -> str:
    if not found["families"]:
        return ""
    head = ["Family", "Cases", *_heads(names), "A alone", "B alone"]
    rows = [[text(family), *(str(count) for count in counts.values())] for family, counts in found["families"].items()]
    return page.wide_table(head, rows)


def _apart(found: dict) -> str:
    if not found["apart"]:
        return ""
    rows = [[text(entry["case"]), text(entry["collided"])] for entry in found["apart"][:MOST_CASES]]
    left = len(found["apart"]) - MOST_CASES
    more = f'<p class="note">and {left} more, see compare.json</p>' if left > 0 else ""
    return page.wide_table(["Case", "Collided"], rows) + more


def _provenance(found: dict) -> str:
    entries: dict[str, object] = {}
    for key, run in (("A", found["a"]), ("B", found["b"])):
        versions = ", ".join(f"{name} {version}" for name, version in (run["versions"] or {}).items())
        entries[f"{key}: {run['name']}"] = f"{run['folder']}, made {run['created']} by {run['command']}; {versions}"
    return page.facts(entries)
