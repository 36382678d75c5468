# SPDX-License-Identifier: GPL-3.0-or-later
"""A recovered `.env` names the volume that is in use, and never a guess."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent.config_volume import VolumeEvidence, choose

OLD, NEW, GONE = "pgdata_1", "pgdata_2", "pgdata_0"
BOTH = (OLD, NEW)


@pytest.mark.parametrize(
    ("seen", "volume"),
    [
        pytest.param(VolumeEvidence(env=NEW, mounted=NEW, existing=BOTH), NEW, id="as_it_should_be"),
        pytest.param(VolumeEvidence(mounted=OLD, existing=BOTH), OLD, id="env_lost_server_there"),
        pytest.param(VolumeEvidence(env=GONE, mounted=OLD, existing=BOTH), OLD, id="env_wrong_server_there"),
        pytest.param(VolumeEvidence(copied=OLD, restored=NEW, existing=BOTH), NEW, id="restored_since_the_copy"),
        pytest.param(VolumeEvidence(env=NEW, mounted=OLD, restored=NEW, existing=BOTH), NEW, id="container_outdated"),
        pytest.param(VolumeEvidence(env=OLD, mounted=OLD, restored=NEW, existing=BOTH), OLD, id="both_say_the_same"),
        pytest.param(VolumeEvidence(mounted=GONE, copied=GONE, existing=(OLD,)), GONE, id="lost_is_not_replaced"),
        pytest.param(VolumeEvidence(copied=NEW, existing=BOTH), NEW, id="copy_names_the_newest"),
        pytest.param(VolumeEvidence(copied=OLD, existing=BOTH), None, id="copy_names_an_older_one"),
        pytest.param(VolumeEvidence(env=NEW, copied=OLD, existing=BOTH), None, id="they_disagree"),
        pytest.param(VolumeEvidence(existing=BOTH), None, id="nothing_tells"),
        pytest.param(VolumeEvidence(existing=(OLD,)), OLD, id="only_one_there"),
        pytest.param(VolumeEvidence(copied=GONE, existing=()), GONE, id="all_gone"),
        pytest.param(VolumeEvidence(existing=()), None, id="never_any"),
        pytest.param(VolumeEvidence(existing=BOTH, named=OLD), OLD, id="operator_names_it"),
        pytest.param(VolumeEvidence(existing=BOTH, named=GONE), None, id="operator_names_one_that_is_gone"),
        pytest.param(
            VolumeEvidence(env=NEW, mounted=NEW, existing=BOTH, named=OLD), NEW, id="operator_switches_nothing"
        ),
        pytest.param(
            VolumeEvidence(env=NEW, mounted=OLD, existing=BOTH, unfinished={"old_volume": OLD, "new_volume": NEW}),
            NEW,
            id="restore_has_switched",
        ),
        pytest.param(
            VolumeEvidence(mounted=OLD, existing=BOTH, unfinished={"old_volume": OLD, "new_volume": NEW}),
            OLD,
            id="restore_under_way_env_lost",
        ),
    ],
)
def test_which_volume(seen: VolumeEvidence, volume: str | None) -> None:
    assert choose(seen) == volume
