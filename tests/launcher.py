"""The environment of launcher.env, for tests and measurements in Python."""
import os

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.env"), encoding="ascii") as file:
    SETTINGS = dict(line.strip().split("=", 1) for line in file if line.strip() and not line.startswith("#"))

# Several jobs at a time would be bound to the same cores.
UNBOUND = {"OMPI_MCA_hwloc_base_binding_policy": "none", "PRTE_MCA_hwloc_default_binding_policy": "none"}
# Open MPI is set to start no more ranks than there are cores, and to say why it starts nothing.
NO_OVERSUBSCRIPTION = {"OMPI_MCA_rmaps_base_oversubscribe": "0", "PRTE_MCA_rmaps_default_mapping_policy": ":nooversubscribe"}


def environment(**more):
    return dict(os.environ, **SETTINGS, **more)
