"""What infra/ holds is well-formed, and the commands that it and other documents show are understood by their jobs."""

import copy
import json
import re
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml
from command_lines import ROOT, command_lines

from mitoray.commandline import JobParser

INFRA = ROOT / "infra"
SCHEMAS = Path(__file__).parent / "schemas"
KUBERAY = sorted((INFRA / "kuberay").glob("*.yaml"))
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(INFRA.rglob("*.md")),
    *sorted(INFRA.rglob("*.yaml")),
    *sorted(ROOT.glob("jobs/*.py")),
]
SHOWN = [line for path in DOCUMENTS if "dashboards" not in path.parts for line in command_lines(path)]


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def refusals(schema, document):
    """Where and why a document is refused; nothing if it is not."""
    validator = jsonschema.Draft202012Validator(schema)
    for kind in schema.get("oneOf", []):  # of several kinds, tell what is wrong with the one that is meant
        if kind["properties"]["kind"]["const"] == document.get("kind"):
            validator = jsonschema.Draft202012Validator({**kind, "$defs": schema["$defs"]})
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture(scope="module")
def kuberay():
    return json.loads((SCHEMAS / "kuberay.json").read_text())


def pod_specs(document):
    """The pods of a RayJob or RayCluster, by who they are."""
    spec = document.get("spec", {})
    cluster = spec.get("rayClusterSpec", spec)
    if "submitterPodTemplate" in spec:
        yield "submitter", spec["submitterPodTemplate"]["spec"]
    if "headGroupSpec" in cluster:
        yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]["spec"]


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kuberay_files_hold_documented_fields_only(kuberay, path):
    for document in documents(path):
        assert refusals(kuberay, document) == []


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("spec",), {"ttlSecondsAfterFinish": 60}),
        (("spec", "activeDeadlineSeconds"), "86400"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), {"maxReplica": 4}),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"), {"terminationGraceSeconds": 120}),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), {"enviroment": []}),
    ],
)
def test_a_typo_is_refused(kuberay, where, wrong):
    job = copy.deepcopy(documents(INFRA / "kuberay/score-cohort.yaml")[1])
    at = job
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = {**at[where[-1]], **wrong} if isinstance(wrong, dict) else wrong
    assert refusals(kuberay, job)


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_pods_run_unprivileged_with_their_own_credentials(path):
    for document in documents(path):
        for name, pod in pod_specs(document):
            assert pod["securityContext"]["runAsNonRoot"], name
            assert pod["restartPolicy"] == "Never", name
            if name != "submitter":
                assert pod["serviceAccountName"] == "mitoray", name
            if name != "head":  # where the autoscaler asks Kubernetes for pods
                assert pod["automountServiceAccountToken"] is False, name
            for container in pod["containers"]:
                assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name
                assert not container["securityContext"]["allowPrivilegeEscalation"], name
                for variable in container.get("env", []):
                    assert (
                        not re.search("KEY|SECRET|TOKEN|PASSWORD|MLFLOW", variable["name"]) or "valueFrom" in variable
                    )


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_clusters_ask_for_a_token_scale_and_keep_work_off_the_head(path):
    for document in documents(path):
        spec = document.get("spec", {})
        cluster = spec.get("rayClusterSpec", spec)
        if not cluster:
            continue
        assert cluster["authOptions"]["mode"] == "token"
        assert cluster["enableInTreeAutoscaling"]
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            pod = group["template"]["spec"]
            for container in pod["containers"]:
                (stop,) = container["lifecycle"]["preStop"]["exec"]["command"][2:]
                assert int(stop.rpartition(" ")[2]) < pod["terminationGracePeriodSeconds"]
        if document["kind"] == "RayJob":
            assert spec["shutdownAfterJobFinishes"]  # without it nothing would be deleted, and paid for
            assert spec["activeDeadlineSeconds"] > 0
            assert spec["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_what_a_pod_mounts_is_there(path):
    found = documents(path)
    maps = {document["metadata"]["name"]: document["data"] for document in found if document["kind"] == "ConfigMap"}
    for document in found:
        for _, pod in pod_specs(document):
            volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod.get("volumes", [])}
            for container in pod["containers"]:
                for mount in container.get("volumeMounts", []):
                    files = maps[volumes[mount["name"]]]
                    entrypoint = document["spec"]["entrypoint"].split()[-1]
                    assert entrypoint in {f"{mount['mountPath']}/{name}" for name in files}


def test_all_files_use_the_ray_that_the_image_has():
    pins = (INFRA / "docker/constraints.txt").read_text()
    (ray,) = re.findall(r"(?m)^ray==([\d.]+)$", pins)
    told = re.findall(r'rayVersion: "([\d.]+)"', "".join(path.read_text() for path in KUBERAY))
    assert len(told) >= 3
    assert set(told) == {ray}


class Understood(BaseException):
    """Raised in place of what a job would do after it has parsed its arguments."""


@pytest.fixture(scope="module")
def parsers():
    """Those that jobs have made already: most of a test's time would go into making one."""
    return {}


@pytest.fixture
def parses(job, parsers, monkeypatch, tmp_path):
    """Lets a job parse a command line, with its own parser and its options' own checks, and go no further."""
    parsed = JobParser.parsed
    monkeypatch.chdir(tmp_path)

    def parse(line):
        words = list(line.arguments)
        for option, value in pairwise(words):
            if option == "--config":  # which may give whatever the line does not
                lacking = {"manifest": "m.csv", "labels": "l.csv", "output": "out"}
                given = {name: text for name, text in lacking.items() if f"--{name}" not in words}
                (tmp_path / value).write_text(yaml.safe_dump(given))
            elif "*" not in value and value.endswith(".svs"):
                (tmp_path / value).write_bytes(b"")
        command = words[0] if words and not words[0].startswith("-") else ""

        def stop(parser, argv, *groups):
            parsers[line.job, command] = parser, groups, len(words) - len(argv)
            parsed(parser, argv, *groups)
            raise Understood

        monkeypatch.setattr(JobParser, "parsed", stop)
        known = parsers.get((line.job, command))
        with pytest.raises(Understood):
            job(line.job)(words) if known is None else known[0].parsed(words[known[2] :], *known[1])

    return parse


@pytest.mark.parametrize("line", SHOWN, ids=lambda line: line.where)
def test_a_command_that_is_shown_is_understood(parses, line):
    parses(line)


def test_the_commands_are_found():
    by_file = [line.where.partition(":")[0] for line in SHOWN]
    assert by_file.count("README.md") >= 20
    assert by_file.count("infra/kuberay/score-cohort.yaml") == 1
    assert by_file.count("infra/kuberay/train-detector.yaml") == 1
    for path in ROOT.glob("jobs/*.py"):
        assert str(path.relative_to(ROOT)) in by_file, f"{path.name} shows no command line"
    score = next(line for line in SHOWN if line.where.startswith("infra/kuberay/score-cohort.yaml"))
    assert score.arguments[:2] == ("--manifest", "s3://example-bucket/cohort.csv")
    assert "--log-level" in score.arguments


def test_a_command_with_a_wrong_option_is_not_understood(parses, tmp_path, monkeypatch):
    parses(SHOWN[0])
    shown = tmp_path / "README.md"
    shown.write_text("    uv run jobs/score_cohort.py --sllides a.svs --output out\n")
    monkeypatch.setattr("command_lines.ROOT", tmp_path)
    (line,) = command_lines(shown)
    with pytest.raises(SystemExit, match="2"):
        parses(line)


def test_costs_follow_from_the_measured_seconds_and_the_prices():
    measured = (ROOT / "README.md").read_text()
    table = re.findall(
        r"(?m)^\| .+ \| ([\d.]+) \| ([\d,]+) \| \$([\d.]+) \| \$(\d+) \|$", (INFRA / "README.md").read_text()
    )
    assert len(table) == 3
    for seconds, mm2_per_hour, price, per_million in table:
        assert re.search(rf"(?<![\d.]){re.escape(seconds)}(?![\d.]*\d)", measured), (
            f"{seconds} s/mm² is not in the README"
        )
        rate = float(mm2_per_hour.replace(",", ""))
        assert rate == pytest.approx(3600 / float(seconds), rel=0.01)
        assert float(per_million) == pytest.approx(float(price) / rate * 1e6, abs=0.6)
