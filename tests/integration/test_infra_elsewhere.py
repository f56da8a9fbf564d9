"""infra/aws and infra/compose.yaml, validated by what reads them where that is installed, by documented fields else."""

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from command_lines import ROOT

from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import manifest_from_globs
from mitoray.slide import open_slide
from mitoray.storage import Folder

INFRA = ROOT / "infra"
SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture(scope="module")
def aws():
    return yaml.safe_load((INFRA / "aws/cluster.yaml").read_text())


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def test_ray_up_takes_the_cluster(aws):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(aws))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**aws, "max_worker": 3}))


def test_ec2_knows_every_field_of_the_nodes(aws):
    import botocore.session
    from botocore.validate import ParamValidator

    service = botocore.session.get_session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    counts = {"MinCount": 1, "MaxCount": 1}
    for name, node in aws["available_node_types"].items():
        report = ParamValidator().validate({**node["node_config"], **counts}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
    assert ParamValidator().validate({"InstanceTypes": "m7i.large", **counts}, shape).has_errors()


def test_only_the_head_of_the_cluster_stays(aws):
    for name, node in aws["available_node_types"].items():
        assert node["min_workers"] == 0
        assert (node["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}) == (name != "head")
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert aws["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert "--env=RAY_AUTH_MODE=token" in aws["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in aws["file_mounts"]


def starts_of_ray(aws, compose):
    """Every `ray …` that the files run: its words after `ray`."""
    lines = [*aws["head_start_ray_commands"], *aws["worker_start_ray_commands"]]
    for service in compose["services"].values():
        command = service.get("command", "")
        lines += [command] if isinstance(command, str) else []
        lines += [shlex.join(service.get("healthcheck", {}).get("test", ["CMD"])[1:])]
    for path in (INFRA / "kuberay").glob("*.yaml"):
        lines += re.findall(r"-c, (ray stop [^\]]+)\]", path.read_text())
    return [shlex.split(line)[1:] for line in lines if line.startswith("ray ")]


def test_ray_knows_every_option_that_it_is_started_with(aws, compose):
    from ray.scripts.scripts import cli

    found = starts_of_ray(aws, compose)
    assert len(found) >= 8
    for words in found:
        shown = CliRunner().invoke(cli, [*words, "--help"])  # options before it are parsed first
        assert shown.exit_code == 0, (words, shown.output)
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{re.escape(option)}\b", shown.output), f"ray {words[0]} does not know {option}"


def test_mlflow_knows_every_option_that_its_server_is_started_with(compose):
    from mlflow.cli import cli

    program, *words = shlex.split(compose["services"]["mlflow"]["command"])
    assert (program, words[0]) == ("mlflow", "server")
    shown = CliRunner().invoke(cli, ["server", "--help"])
    assert shown.exit_code == 0
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", shown.output), option
    assert "MLFLOW_BACKEND_STORE_URI" in compose["services"]["mlflow"]["environment"]


def test_compose_holds_documented_fields_only(compose):
    validator = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "compose.json").read_text()))
    assert [error.message for error in validator.iter_errors(compose)] == []
    worker = compose["services"]["worker"]
    for wrong in ({"shm-size": "4gb"}, {"ports": ["0.0.0.0:8265:8265"]}, {"restart": "sometimes"}):
        typo = {**compose, "services": {**compose["services"], "worker": {**worker, **wrong}}}
        assert list(validator.iter_errors(typo)), wrong


def test_compose_refers_to_what_it_declares(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other], (
                f"{name} waits for {other}"
            )
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{[^}]*\}", "$", volume).partition(":")[0]
            assert source == "$" or source in compose["volumes"]
    text = (INFRA / "compose.yaml").read_text()
    secrets = re.findall(r"(?m)^\s+\w*(?:SECRET|PASSWORD|TOKEN)\w*: (.*)$", text)
    assert len(secrets) >= 4
    assert all(value.startswith("${") and ":?" in value for value in secrets)  # none has a default


def test_slides_and_results_in_an_object_store_that_the_environment_names(s3, tmp_path, monkeypatch):
    draw_cohort(tmp_path, n_slides=1, seed=950_000, width_px=600, height_px=500)
    (here,) = tmp_path.glob("*.svs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3["secret"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    Folder.at("s3://slides/named-by-environment", None).write_bytes(here.name, here.read_bytes())
    (row,) = manifest_from_globs(["s3://slides/named-by-environment/*.svs"], None)
    with open_slide(row.uri) as there, open_slide(str(here)) as local:
        assert (there.width_px, there.height_px) == (local.width_px, local.height_px)
