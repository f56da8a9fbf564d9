"""What a run exports is what Prometheus gets from a real Ray, and what the dashboard and the rules ask for."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from mitoray.phantom import draw_cohort
from mitoray.scoring.config import Cohort, Method, Resources
from mitoray.scoring.manifest import ManifestRow, read_manifest
from mitoray.scoring.metrics import METRICS, TAGS

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "infra/dashboards/mitoray.json"
RULES = ROOT / "infra/dashboards/rules.yaml"
ENDINGS = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
EXPORTED = {f"ray_{name}{ending}" for name, metric in METRICS.items() for ending in ENDINGS[metric.kind]}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def questions():
    """All that the dashboard and the rules ask of Prometheus."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    asked += [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    return asked + [rule["expr"] for rule in rules()]


def test_every_metric_that_is_asked_for_is_exported():
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    recorded = {rule["record"] for rule in rules() if "record" in rule}
    of_ray = {f"ray_{name}" for name in METRICS_GAUGES}
    for question in questions():
        names = set(re.findall(r"\b(?:ray_|mitoray:)\w+(?::\w+)*", question))
        assert names, question
        assert names <= EXPORTED | recorded | of_ray, question


def test_every_metric_is_asked_for():
    asked = " ".join(questions())
    for name, metric in METRICS.items():
        assert any(f"ray_{name}{ending}" in asked for ending in ENDINGS[metric.kind]) or name == "mitoray_slides", name


@pytest.mark.parametrize("opening", ["()", "[]", "{}"])
def test_brackets_are_closed(opening):
    for question in questions():
        depth = 0
        for character in question:
            depth += (character == opening[0]) - (character == opening[1])
            assert depth >= 0, question
        assert depth == 0, question


def test_panels_do_not_overlap_and_alerts_say_what_to_do():
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for rule in rules():
        assert "record" in rule or {"summary", "remedy"} == rule["annotations"].keys()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' own checker is not installed")
def test_prometheus_takes_the_rules_and_every_question_of_the_dashboard(tmp_path):
    own = {"groups": [{"name": "panels", "rules": []}]}
    for number, panel in enumerate(panels()):
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m")
            own["groups"][0]["rules"].append({"record": f"panel:{number}:{target['refId']}", "expr": expr})
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump(own))
    for file in (RULES, tmp_path / "panels.yaml"):
        done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_tag_tells_slides_apart():
    assert set(TAGS) == {"cohort", "stage"}


@pytest.mark.parametrize(
    ("output", "name"),
    [("/data/tcga-brca/", "tcga-brca"), ("s3://bucket/runs/one", "one"), ("s3://key:secret@bucket", "bucket")],
)
def test_a_cohort_is_called_by_its_output(output, name):
    assert Cohort([], "mitoray-s", output).name == name


def scraped(node):
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("ray_mitoray_"):
            name, tags, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', tags))] = float(value)
    return found


@pytest.mark.slow
def test_a_run_s_numbers_arrive_in_the_metrics_of_a_real_ray(ray_session, tmp_path):
    import ray

    from mitoray.scoring.pipeline import score_cohort
    from mitoray.scoring.run import Run

    draw_cohort(tmp_path / "slides", n_slides=2, seed=960_000, width_px=1000, height_px=1000)
    rows = [*read_manifest(str(tmp_path / "slides/manifest.csv")), ManifestRow("gone", str(tmp_path / "gone.svs"))]
    run = Run.claim(Cohort(rows, "mitoray-s", str(tmp_path / "measured"), Method(region_um=128)))
    score_cohort(run, Resources(num_actors=1), progress=False)
    record = run.folder.read_json("run.json")
    expected = {
        ("ray_mitoray_regions_total", "score"): record["counts"]["n_regions"],
        ("ray_mitoray_slides_total", "plan"): 3,
        ("ray_mitoray_failed_slides_total", "plan"): 1,
        ("ray_mitoray_slides_total", "reduce"): 3,
        ("ray_mitoray_queue_depth", "score"): 0,
        ("ray_mitoray_queue_depth", "reduce"): 0,
    }
    (node,) = ray.nodes()
    until = time.monotonic() + 60
    while True:
        mine = {key: value for key, value in scraped(node).items() if ("cohort", "measured") in key[1]}
        found = {(name, dict(tags)["stage"]): value for (name, tags), value in mine.items()}
        if expected.items() <= found.items() or time.monotonic() > until:
            break
        time.sleep(2)
    assert expected.items() <= found.items(), found
    regions = pytest.approx(sum(scraped_area(run)), rel=1e-6)
    assert found["ray_mitoray_area_mm2_total", "score"] == regions
    for stage in ("fetch", "decode", "detect"):
        assert found["ray_mitoray_actor_seconds_total", stage] == pytest.approx(
            record["actor_seconds"][stage], abs=0.02
        )
    assert {name for name, _ in mine} >= EXPORTED - {"ray_mitoray_failed_regions_total"}
    told = " ".join(f"{name} {sorted(tags)}" for name, tags in mine)
    assert not any(row.slide_id in told for row in rows if row.slide_id != "gone")


def scraped_area(run):
    for name in run.folder.names("work/regions", ".parquet"):
        for row in run.folder.read_table(name).to_pylist():
            yield row["width_px"] * row["height_px"] * row["mpp"] ** 2 / 1e6
