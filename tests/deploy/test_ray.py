from pathlib import Path

import yaml

CLUSTER = Path(__file__).parents[2] / "deploy/ray/cluster.yaml"


def test_ray_accepts_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(CLUSTER.read_text())))
