"""The manifests, rendered as `kubectl apply -k` renders them, held to the API's own schemas."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings, unknown_variables
from app.telemetry import Metrics

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.30", "1.37")
"""The oldest that is promised, and the newest that has schemas."""

FOREIGN_KINDS = {"ServiceMonitor"}
"""Of operators, with schemas of their own."""

Manifest = dict[str, Any]


def has_kustomize() -> bool:
    """Tell whether kubectl renders components; Debian's own is too old."""
    if shutil.which("kubectl") is None:
        return False
    words = ["kubectl", "version", "--client"]
    told = subprocess.run(words, check=False, capture_output=True, text=True)
    return "Kustomize Version: v5" in told.stdout


def render(folder: Path) -> list[Manifest]:
    """Render a kustomization."""
    if not has_kustomize():
        pytest.skip("no kubectl with kustomize 5 on this machine")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """The manifests of an overlay, by kind."""
    return {
        manifest["kind"]: manifest for manifest in render(KUBERNETES / "overlays" / request.param)
    }


def container(rendered: dict[str, Manifest]) -> Manifest:
    """The one container of a pod."""
    (found,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_what_the_api_takes(rendered: dict[str, Manifest], version: str) -> None:
    for kind in rendered.keys() - FOREIGN_KINDS:
        kubernetes_validate.validate(rendered[kind], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_base_is_valid_by_itself(version: str) -> None:
    for path in sorted((KUBERNETES / "base").glob("*.yaml")):
        manifest = yaml.safe_load(path.read_text())
        if manifest["kind"] not in ("Kustomization", "Deployment"):  # its selector is added later
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_found(rendered: dict[str, Manifest]) -> None:
    rendered["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 45

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(rendered["Deployment"], VERSIONS[-1], strict=True)


def test_the_models_can_come_from_an_image(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [kubernetes/base]\ncomponents: [kubernetes/components/models-image]\n"
    )

    manifests = {manifest["kind"]: manifest for manifest in render(tmp_path)}

    assert "PersistentVolumeClaim" not in manifests
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (models,) = [volume for volume in pod["volumes"] if volume["name"] == "models"]
    assert models == {"name": "models", "emptyDir": {"sizeLimit": "1Gi"}}
    for version in VERSIONS:
        kubernetes_validate.validate(manifests["Deployment"], version, strict=True)


def test_the_service_knows_every_setting(rendered: dict[str, Manifest]) -> None:
    data = rendered["ConfigMap"]["data"]

    assert unknown_variables(data) == []
    settings = Settings(
        **{name.removeprefix("CXR_").lower(): value for name, value in data.items()}
        | {"api_keys_file": None, "waive_api_key": True}
    )
    assert settings.overload_status == "429"


def test_a_pod_has_time_to_answer_what_it_took(rendered: dict[str, Manifest]) -> None:
    data = rendered["ConfigMap"]["data"]
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    waits_s = container(rendered)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = (
        waits_s + float(data["CXR_DRAIN_SECONDS"]) + float(data["CXR_DEFAULT_TIMEOUT_SECONDS"])
    )

    assert pod["terminationGracePeriodSeconds"] >= needed_s + 5


def test_a_pod_may_do_nothing_that_it_need_not(rendered: dict[str, Manifest]) -> None:
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    context = container(rendered)["securityContext"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_policies_select_the_pods_and_no_others(rendered: dict[str, Manifest]) -> None:
    labels = rendered["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        rendered["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        rendered["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        rendered["Service"]["spec"]["selector"],
        rendered["ServiceMonitor"]["spec"]["selector"]["matchLabels"],
    ]

    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_the_autoscaler_owns_the_number_of_pods_and_follows_a_metric_that_exists(
    rendered: dict[str, Manifest],
) -> None:
    (metric,) = rendered["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    rule = yaml.safe_load((KUBERNETES / "components/autoscaling/adapter-rule.yaml").read_text())
    (custom,) = rule["rules"]["custom"]

    assert "replicas" not in rendered["Deployment"]["spec"]
    assert name in {family.name for family in Metrics().registry.collect()}
    assert re.fullmatch(custom["name"]["matches"], name)
    assert custom["seriesQuery"].startswith(name)
