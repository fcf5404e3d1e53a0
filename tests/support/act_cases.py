"""Every act of the product: what comes before it, what it is, what it leaves in the log."""

from __future__ import annotations

from flows.check_triggers import check
from flows.experiment import look
from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import experiments, versions
from tests.support.acting import (
    LIKED,
    RATED,
    TRAINED,
    Case,
    World,
    cli,
    die,
    fail,
    half,
    import_file,
    in_registry,
    promoted,
    revoke_key,
    start_flow,
)

CASES: dict[str, Case] = {
    "add a workload": Case(
        cli("workload", "add", "support"), ["add_workload"], commands=("workload add",)
    ),
    "make a key": Case(cli("key", "create", "bot"), ["create_key"], commands=("key create",)),
    "revoke a key": Case(
        revoke_key, ["revoke_key"], before=cli("key", "create", "bot"), commands=("key revoke",)
    ),
    "make a token": Case(cli("token", "alice"), ["create_token"], commands=("token",)),
    "import": Case(import_file, ["import", "end_import"], commands=("import",)),
    "export": Case(
        cli("export", "interactions", "--out", "exported"),
        ["export"],
        before=LIKED,
        commands=("export",),
    ),
    "back up": Case(cli("backup", "backed-up"), ["backup"], commands=("backup create",)),
    "set a user's consent": Case(
        cli("consent", "alice", "opt_out"), ["set_consent"], commands=("consent",)
    ),
    "export a user": Case(cli("export-user", "alice"), ["export_user"], commands=("export-user",)),
    "erase a user": Case(
        cli("erase-user", "alice", "--approved-by", "boss"),
        ["erase_user", "user_erased"],
        before=cli("consent", "alice", "opt_out"),
        commands=("erase-user",),
    ),
    "rotate keys": Case(
        cli("keys", "rotate"), ["make_key", "rotate_keys"], commands=("keys rotate",)
    ),
    "delete what is old": Case(
        lambda world: run_retention(world.context, steps=PlainSteps()),
        ["expire", "expire"],  # answers, and people of whom nothing is left
        before=lambda world: (LIKED(world), world.clock.move(hours=24 * 400)),
        commands=("retention",),
        deployments=("retention/daily",),
    ),
    "fit a scorer": Case(
        cli("scorer", "fit"),
        ["fit_scorer", "activate_scorer"],
        before=RATED,
        commands=("scorer fit",),
    ),
    "activate a scorer": Case(
        lambda world: world.cli("scorer", "activate", world.scorer()),
        ["activate_scorer"],
        before=lambda world: (RATED(world), world.cli("scorer", "fit")),
        commands=("scorer activate",),
    ),
    "turn the scorer off": Case(
        cli("scorer", "off"),
        ["deactivate_scorer"],
        before=lambda world: (RATED(world), world.cli("scorer", "fit")),
        commands=("scorer off",),
    ),
    "curate": Case(
        cli("curate"),
        ["curate"],
        before=LIKED,
        commands=("curate",),
        deployments=("curate/daily",),
    ),
    "fire a trigger": Case(
        lambda world: check(world.context, workload="default", force=True, steps=PlainSteps()),
        ["fire_trigger"],
        commands=("triggers",),
        deployments=("check-triggers/hourly",),
    ),
    "train, pass the gate, try out": Case(
        World.retrain,
        [*TRAINED, "start_experiment", "register_version", "end_training"],
        before=LIKED,
        commands=("retrain",),
        deployments=("retrain/weekly", "evaluate/monthly"),
    ),
    "train, fail the gate": Case(
        lambda world: world.retrain(0.1),
        [*TRAINED, "register_version", "end_training"],
        before=LIKED,
    ),
    "refuse to train": Case(World.retrain, ["start_training", "build_dataset", "end_training"]),
    "training that fails": Case(fail, [*TRAINED, "end_training"], before=LIKED),
    "training whose process dies": Case(
        lambda world: check(world.context, workload="default", steps=PlainSteps()),
        ["end_training"],
        before=die,
    ),
    "put several on trial": Case(
        cli("experiment", "start", "v1", "v2"),
        ["start_experiment"],
        before=lambda world: world.registered(2),
        commands=("experiment start",),
    ),
    "drop one of several": Case(
        cli("experiment", "drop", "v2"),
        ["drop_challenger"],
        before=lambda world: world.cli("experiment", "start", *world.registered(3)),
        commands=("experiment drop",),
    ),
    "try the champion against itself": Case(
        cli("experiment", "aa"),
        ["start_experiment"],
        before=lambda world: (world.registered(1), world.cli("promote", "v1")),
        commands=("experiment aa",),
    ),
    "decide to promote": Case(
        lambda world: look(world.context, "default"),
        ["promote"],
        before=lambda world: world.judge(good=True),
        commands=("experiment",),
        deployments=("experiment/quarter-hourly",),
    ),
    "decide to roll back": Case(
        lambda world: look(world.context, "default"),
        ["roll_back"],
        before=lambda world: world.judge(good=False),
    ),
    "promote": Case(
        cli("promote"),
        ["promote"],
        before=World.try_out,
        commands=("promote",),
        routes=("POST /api/admin/versions/{version:path}/promote",),
    ),
    "end a trial": Case(
        cli("rollback"),
        ["roll_back"],
        before=World.try_out,
        commands=("rollback",),
        routes=("POST /api/admin/rollback",),
    ),
    "roll the champion back": Case(
        cli("rollback"), ["roll_back"], before=lambda world: (world.try_out(), world.cli("promote"))
    ),
    "set the share": Case(
        half,
        ["set_share"],
        before=World.try_out,
        routes=("PUT /api/admin/experiment/share",),
    ),
    "pause": Case(
        in_registry(
            lambda session, act, trial: experiments.pause(session, act, experiment_id=trial)
        ),
        ["pause_experiment"],
        before=World.try_out,
        routes=("POST /api/admin/experiment/pause",),
    ),
    "resume": Case(
        in_registry(
            lambda session, act, trial: experiments.resume(session, act, experiment_id=trial)
        ),
        ["resume_experiment"],
        before=lambda world: (
            world.try_out(),
            in_registry(
                lambda session, act, trial: experiments.pause(session, act, experiment_id=trial)
            )(world),
        ),
        routes=("POST /api/admin/experiment/resume",),
    ),
    "pause by command": Case(
        cli("experiment", "pause"),
        ["pause_experiment"],
        before=World.try_out,
        commands=("experiment pause",),
    ),
    "resume by command": Case(
        cli("experiment", "resume"),
        ["resume_experiment"],
        before=lambda world: (world.try_out(), world.cli("experiment", "pause")),
        commands=("experiment resume",),
    ),
    "freeze": Case(
        cli("experiment", "freeze"),
        ["freeze_experiment"],
        before=World.try_out,
        commands=("experiment freeze",),
        routes=("POST /api/admin/experiment/freeze",),
    ),
    "let the numbers decide again": Case(
        cli("experiment", "unfreeze"),
        ["unfreeze_experiment"],
        before=lambda world: (world.try_out(), world.cli("experiment", "freeze")),
        commands=("experiment unfreeze",),
        routes=("POST /api/admin/experiment/unfreeze",),
    ),
    "confirm a promotion": Case(
        lambda world: look(world.context, "default"),
        ["confirm_promotion"],
        before=lambda world: (
            world.try_out(),
            promoted(world),
            world.clock.move(hours=24 * 30),
        ),
    ),
    "retire a challenger": Case(
        in_registry(
            lambda session, act, trial: experiments.stop(
                session, act, experiment_id=trial, status=versions.Status.RETIRED
            )
        ),
        ["retire_challenger"],
        before=World.try_out,
    ),
    "start a flow over the API": Case(
        start_flow,
        ["start_flow"],
        routes=("POST /api/admin/train-model", "POST /api/admin/curate-training-data"),
    ),
}
