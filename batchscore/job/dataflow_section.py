"""The section of the job file on Dataflow, and the forms of what it names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from batchscore.job.field_types import PATTERN_MEANINGS, Section

PROJECT = r"^([a-z][a-z0-9.-]{1,61}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$"
REGION = r"^[a-z]+(-[a-z]+)+[0-9]{1,2}$"
BUCKET = r"^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\x00-\x1f\x7f#?*\[\]]*)?$"
IMAGE = r"^[a-z0-9][A-Za-z0-9._:/@-]{2,254}$"
ACCOUNT = r"^[a-z0-9][a-z0-9.-]*@[a-z0-9][a-z0-9.-]*\.gserviceaccount\.com$"
SUBNETWORK = (
    r"^(https://www\.googleapis\.com/compute/v1/projects/[a-z0-9.:-]+/)?"
    r"regions/[a-z0-9-]+/subnetworks/[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
)
MACHINE = r"^[a-z][a-z0-9]*-([a-z]+-)?[a-z0-9]+(-[a-z0-9]+)*$"
ACCELERATOR = r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$"
MIN_RAM = r"^[1-9][0-9]{0,4}GB$"
LABEL_KEY, LABEL_VALUE = r"^[a-z][a-z0-9_-]{0,62}$", r"^[a-z0-9_-]{0,63}$"

PATTERN_MEANINGS.update(
    {
        PROJECT: "the id of a project, such as my-project",
        REGION: "a region, such as europe-west4, and not a zone in it",
        BUCKET: "gs://BUCKET or gs://BUCKET/FOLDER",
        IMAGE: "the name of a container image, such as europe-docker.pkg.dev/P/R/batchscore:0.1.0",
        ACCOUNT: "the email of a service account, NAME@PROJECT.iam.gserviceaccount.com",
        SUBNETWORK: "regions/REGION/subnetworks/NAME, or the full address of a subnetwork",
        MACHINE: "a machine type, such as n1-standard-4",
        ACCELERATOR: "a type of GPU, such as nvidia-tesla-t4",
        MIN_RAM: "gigabytes, such as 16GB",
        LABEL_KEY: "a label of up to 63 of a-z, 0-9, '_' and '-' that begins with a letter",
        LABEL_VALUE: "the value of a label, up to 63 of a-z, 0-9, '_' and '-'",
    }
)

_LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY)]
_LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE)]


class Dataflow(Section):
    """The project and the VMs that `runtime.engine: dataflow` uses; other engines ignore it.

    `project`, `region`, `temp_location` and `image` are needed on that engine.
    """

    project: Annotated[str, StringConstraints(pattern=PROJECT)] | None = Field(
        default=None, description="The project that runs the job and pays for it."
    )
    region: Annotated[str, StringConstraints(pattern=REGION)] | None = Field(
        default=None, description="Where it runs: `europe-west4`. Choose that of the buckets."
    )
    temp_location: Annotated[str, StringConstraints(pattern=BUCKET)] | None = Field(
        default=None,
        description="Where the pipeline's description is put for Dataflow: `gs://BUCKET/FOLDER`. "
        "It holds neither rows nor the model.",
    )
    image: Annotated[str, StringConstraints(pattern=IMAGE)] | None = Field(
        default=None,
        description="The container image of the workers, with batchscore in the versions of the "
        "launcher. [jobs/dataflow](../jobs/dataflow/README.md) builds one. Nothing is installed "
        "on a worker.",
    )
    service_account: Annotated[str, StringConstraints(pattern=ACCOUNT)] | None = Field(
        default=None, description="Whom the VMs act as; by default the project's Compute Engine."
    )
    subnetwork: Annotated[str, StringConstraints(pattern=SUBNETWORK)] | None = Field(
        default=None, description="`regions/REGION/subnetworks/NAME`."
    )
    public_ips: bool = Field(
        default=True,
        description="Whether VMs have public addresses. Without, the subnetwork needs Private "
        "Google Access.",
    )
    labels: dict[_LabelKey, _LabelValue] = Field(
        default_factory=dict, max_length=60, description="Labels of the job, as bills list them."
    )
    machine_type: Annotated[str, StringConstraints(pattern=MACHINE)] = Field(
        default="n1-standard-4", description="The VMs."
    )
    accelerator: Annotated[str, StringConstraints(pattern=ACCELERATOR)] | None = Field(
        default=None,
        description="The GPU of each VM: `nvidia-tesla-t4`. Needs `runtime.device: cuda`.",
    )
    min_ram: Annotated[str, StringConstraints(pattern=MIN_RAM)] | None = Field(
        default=None, description="The least memory of a VM, as a hint to Dataflow: `32GB`."
    )
    processes: Literal["auto", "core", "vm"] = Field(
        default="auto",
        description="How many Python processes a VM has: one a vCPU with one thread each (`core`), "
        "or one with all vCPUs (`vm`). `auto` is `vm` with a GPU, and where the memory of "
        "`machine_type` has no room for a model in each process, and else `core`. "
        "[Dataflow](dataflow.md#processes-threads-and-models) has what each takes.",
    )
    vms: Annotated[int, Field(ge=1, le=4000)] | None = Field(
        default=None, description="VMs at the start; by default Dataflow's choice."
    )
    max_vms: Annotated[int, Field(ge=1, le=4000)] = Field(
        default=10, description="The most VMs. A job with fewer units asks for fewer."
    )

    @model_validator(mode="after")
    def _subnetwork_is_of_the_region(self) -> Dataflow:
        region, subnetwork = self.region, self.subnetwork
        if region and subnetwork and f"regions/{region}/" not in subnetwork:
            raise ValueError(
                f"subnetwork {subnetwork} is of another region than {region}; name one"
            )
        return self

    @model_validator(mode="after")
    def _vms_are_at_most_max_vms(self) -> Dataflow:
        if self.vms is not None and self.vms > self.max_vms:
            raise ValueError(f"vms {self.vms} is more than max_vms {self.max_vms}; lower it")
        return self
