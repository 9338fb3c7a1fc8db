import csv
import io
import json
import math
import re

import pytest
from eval_helpers import made_case

from sphinx_nvs.evaluation.datasets import Size
from sphinx_nvs.evaluation.harness import EvalConfig
from sphinx_nvs.evaluation.result_rows import csv_text
from sphinx_nvs.evaluation.result_summary import remarks, summarise
from sphinx_nvs.evaluation.run_evaluation import finite, write_report

SECONDS = {"full-50": 10.0, "regression": 0.1, "ours-0.95": 2.0, "research": 5.0}
LOSSES = {"full-50": 0.0, "regression": 0.2, "ours-0.95": 0.015, "research": 0.04}


def made(spread=0.0, count=8):
    """Scenes whose losses lie evenly around the wanted ones."""
    cases = []
    for i in range(count):
        off = spread * (2 * i / (count - 1) - 1)
        losses = {name: loss + (0 if name == "full-50" else off) for name, loss in LOSSES.items()}
        cases.append(made_case(f"scene-{i}", losses, SECONDS))
    return cases


def test_speedups_losses_and_thresholds_of_made_up_scenes():
    summary = summarise(made(), "cpu")
    assert summary["speedup"] == pytest.approx({"full-50": 1, "regression": 100, "ours-0.95": 5, "research": 2})
    assert summary["loss"] == pytest.approx(LOSSES)
    assert (summary["s_at_2pct"], summary["s_at_2pct_method"]) == (pytest.approx(5), "ours-0.95")
    assert (summary["s_at_5pct"], summary["s_at_5pct_method"]) == (pytest.approx(5), "ours-0.95")
    assert summary["hypervolume"] == pytest.approx(0.85 * math.log2(5) / 4)
    assert summary["front"] == ["full-50", "ours-0.95"]
    assert summary["s_at_2pct_interval"] == pytest.approx((5, 5))


def test_regression_is_no_speedup_of_diffusion_but_is_remarked_on():
    cases = [made_case(f"s{i}", LOSSES | {"regression": 0.001}, SECONDS) for i in range(4)]
    summary = summarise(cases, "cpu")
    assert summary["s_at_2pct_method"] == "ours-0.95"
    assert "Regression alone loses 0.1 %" in remarks(summary)[0]
    assert remarks(summarise(made(), "cpu")) == []
    assert "Fewer than 3 scenes" in remarks(summarise(made(count=2), "cpu"))[0]


def test_a_sure_figure_holds_at_the_losses_upper_bounds():
    summary = summarise(made(spread=0.02), "cpu")
    low, high = summary["methods"]["ours-0.95"]["loss_interval"]
    assert low < 0.015 < high
    assert high > 0.02
    assert summary["s_at_2pct_sure"] == {"speedup": 1.0, "method": "full-50"}
    assert summary["s_at_5pct_sure"]["method"] == "ours-0.95"
    assert summary["s_at_2pct_interval"][0] == 1.0


def test_regions_count_like_the_whole_which_is_also_reported_alone():
    cases = made()
    for case in cases:
        for run in case["methods"]["ours-0.95"]:
            run["metrics"]["unseen"]["rmse"] = 0.15
    summary = summarise(cases, "cpu")
    assert summary["loss"]["ours-0.95"] == pytest.approx(0.5)
    assert summary["methods"]["ours-0.95"]["worst_metric"] == "rmse of unseen"
    assert summary["whole_frames"]["s_at_2pct_method"] == "ours-0.95"
    assert summary["methods"]["ours-0.95"]["loss_of_whole_frames"] == pytest.approx(0.015)


def test_a_scene_without_a_region_is_left_out():
    cases = made()
    for run in (run for runs in cases[0]["methods"].values() for run in runs):
        del run["metrics"]["unseen"]
    losses = summarise(cases, "cpu")["methods"]["ours-0.95"]["losses"]
    assert losses["unseen.rmse"]["scenes"] == len(cases) - 1
    assert losses["whole.rmse"]["scenes"] == len(cases)
    assert losses["unseen.rmse"]["mean"] == pytest.approx(0.015)


def test_psnr_is_reported_and_does_not_count():
    row = summarise(made(), "cpu")["methods"]["ours-0.95"]
    assert row["values"]["whole"]["psnr"]["mean"] == 20.0
    assert not any("psnr" in key for key in row["losses"])


def test_the_noise_floor_is_one_seed_against_another():
    cases = made()
    for i, case in enumerate(cases):
        case["methods"]["full-50"][1]["metrics"]["whole"]["rmse"] *= 1.03 if i % 2 else 0.97
    floor = summarise(cases, "cpu")["noise_floor"]["whole.rmse"]
    assert floor["mean"] == pytest.approx(0, abs=1e-9)
    assert floor["typical"] == pytest.approx(0.03)
    single = [made_case("s", LOSSES, SECONDS, seeds=1)]
    assert summarise(single, "cpu")["noise_floor"] is None


def test_efficiency_obeys_its_identity():
    """Measured speed-up = ideal speed-up x eta_alg x relative hardware efficiency."""
    row = summarise(made(), "cpu")["methods"]["ours-0.95"]
    assert row["eta_alg"] == 0.5
    assert row["ideal_speedup"] * row["eta_alg"] * row["eta_hw_relative"] == pytest.approx(row["speedup"])
    assert row["eta"] == pytest.approx(row["speedup"] / row["ideal_speedup"])
    assert summarise(made(), "cpu")["methods"]["regression"]["eta"] is None


def test_either_clock_and_the_shared_stages_count():
    cases = made()
    for case in cases:
        case["prepare"][0].update(wall_s=1.0, cpu_s=2.0)
    assert summarise(cases, "cpu")["speedup"]["ours-0.95"] == pytest.approx(12 / 4)
    assert summarise(cases, "wall")["speedup"]["ours-0.95"] == pytest.approx(21 / 5)


def test_easy_and_hard_halves():
    cases = made()
    for i, case in enumerate(cases):
        case["distance"] = float(i)
        if i >= 4:
            for run in case["methods"]["research"]:
                run["metrics"]["whole"]["rmse"] = 0.13
    halves = summarise(cases, "cpu")["difficulty"]
    assert (halves["easy"]["scenes"], halves["hard"]["scenes"]) == (4, 4)
    assert halves["hard"]["methods"]["research"]["loss"] == pytest.approx(0.3)
    assert halves["easy"]["methods"]["research"]["loss"] == pytest.approx(0.04)


def test_worst_scenes_come_first():
    cases = made()
    for run in cases[3]["methods"]["ours-0.95"]:
        run["metrics"]["whole"]["rmse"] = 0.2
    worst = summarise(cases, "cpu")["worst_scenes"]["ours-0.95"]
    assert worst[0] == {"case": "scene-3", "loss": pytest.approx(1.0), "metric": "whole.rmse"}
    assert len(worst) == 5


def test_rows_hold_every_figure_once():
    rows = list(csv.DictReader(io.StringIO(csv_text(made(count=2)))))
    rmse = [r for r in rows if (r["method"], r["name"], r["region"]) == ("research", "rmse", "whole")]
    assert [(r["case"], r["seed"], r["kind"]) for r in rmse] == [
        (f"scene-{i}", str(seed), "metric") for i in range(2) for seed in range(2)
    ]
    assert float(rmse[0]["value"]) == pytest.approx(0.104)
    assert {r["kind"] for r in rows} == {"metric", "cost", "time"}
    assert any(r["name"] == "render_s" and not r["method"] for r in rows)


def test_infinity_becomes_null_in_json():
    assert finite({"a": [1.0, math.nan, (math.inf, "b")]}) == {"a": [1.0, None, [None, "b"]]}


@pytest.fixture
def report(tmp_path):
    config = EvalConfig(methods=("regression", "ours-0.95", "research"), size=Size(short_side=32), metrics=("rmse",))
    summary = write_report(made(0.01), {"lost": "clip <3> broke"}, config, tmp_path, "cpu")
    return summary, tmp_path


def test_reports_are_reproducible(report, tmp_path):
    summary, folder = report
    assert {path.name for path in folder.iterdir()} == {"results.csv", "summary.json", "pareto.png", "report.html"}
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_bytes()
    config = EvalConfig(methods=("regression", "ours-0.95", "research"), size=Size(short_side=32), metrics=("rmse",))
    write_report(made(0.01), {"lost": "clip <3> broke"}, config, folder, "cpu")
    assert (folder / "report.html").read_bytes() == page


def test_the_page_is_self_contained_and_complete(report):
    page = (report[1] / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    for words in ("S@2 %", "S@5 %", "hypervolume", "ours-0.95", "scene-7", "Worst scenes", "clip &lt;3&gt; broke"):
        assert words in page
    assert page.count('<section class="scene"') == 8
    assert page.count("<img") == 8 * (2 + 5)
    assert "ideal of ours-0.95" in page


def test_metrics_that_were_not_computed_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path / "nothing"))
    config = EvalConfig(methods=("ours-0.95",), size=Size(short_side=32))
    summary = write_report(made(), {}, config, tmp_path / "out", "cpu")
    assert summary["not_computed"]["lpips_vgg"] == "not computed: weights missing"
    assert "lpips_vgg: not computed: weights missing" in (tmp_path / "out" / "report.html").read_text()
