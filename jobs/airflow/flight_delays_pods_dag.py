"""The same days by pods of Kubernetes: check, then score; a held run shows as skipped.

The image is that of `Dockerfile` at the repository's root. docs/airflow.md has the setup.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import models as k8s

IMAGE = os.environ.get("BATCHSCORE_IMAGE", "registry.example.org/batchscore:0.1.0")
INVALID, HELD = 2, 3
DAY = (
    "{{ dag_run.conf.date if (dag_run.conf or {}).get('date') is not none else "
    "data_interval_start.strftime('%Y-%m-%d') if "
    "data_interval_start and data_interval_start < data_interval_end else "
    "macros.ds_add(dag_run.run_after.strftime('%Y-%m-%d'), -1) }}"
)


class BatchscorePodOperator(KubernetesPodOperator):
    """Runs batchscore in a pod; a wrong job or command, exit code 2, is not tried again."""

    def cleanup(self, pod: Any, remote_pod: Any, *others: Any, **more: Any) -> None:
        """End the task as the pod ended."""
        try:
            super().cleanup(pod, remote_pod, *others, **more)
        except AirflowException as error:
            if ended_with(remote_pod, self.base_container_name) != INVALID:
                raise
            raise AirflowFailException(f"Something is wrong before any work: {error}") from error


def ended_with(pod: Any, container: str) -> int | None:
    """Return the exit code of a pod's container, if it has one."""
    for found in pod.status.container_statuses or ():
        if found.name == container and found.state and found.state.terminated:
            return int(found.state.terminated.exit_code)
    return None


def step(command: str, *options: str) -> KubernetesPodOperator:
    """Return a task that runs a command of batchscore in a pod, as a user without rights."""
    return BatchscorePodOperator(
        task_id=command,
        name=f"flights-{command}",
        image=IMAGE,
        cmds=["batchscore"],
        arguments=[command, "/job/job.yaml", "--param", f"date={DAY}", *options],
        skip_on_exit_code=HELD,
        automount_service_account_token=False,
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=10001,
            fs_group=10001,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": "2", "memory": "2Gi"}, limits={"memory": "4Gi"}
        ),
        volumes=[
            k8s.V1Volume(name="job", config_map=k8s.V1ConfigMapVolumeSource(name="batchscore-job")),
            k8s.V1Volume(name="scratch", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="4Gi")),
        ],
        volume_mounts=[
            k8s.V1VolumeMount(name="job", mount_path="/job", read_only=True),
            k8s.V1VolumeMount(name="scratch", mount_path="/scratch"),
        ],
    )


with DAG(
    "flight_delays_pods",
    description="Scores each day's flights in pods",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime.fromisoformat("2013-01-01T00:00:00+00:00"),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
) as dag:
    step("check") >> step("run", "--wait", "1h")
