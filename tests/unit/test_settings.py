"""Settings: three sources, one object, and no mistake that goes unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from grove_server.settings import Settings, SettingsError, load


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    """The same setting may be given three times; the nearest wins."""
    config = tmp_path / "grove.yaml"
    config.write_text("reads_max: 1\nwrites_max: 1\nwatches_max: 1\nclient_roles: {a: read}\n")
    environment = {"GROVE_CONFIG": str(config), "GROVE_WRITES_MAX": "2", "GROVE_WATCHES_MAX": "2"}
    settings = load(["--watches-max", "3", "--no-reflection"], environment)
    assert (settings.reads_max, settings.writes_max, settings.watches_max) == (1, 2, 3)
    assert settings.client_roles == {"a": "read"}
    assert settings.reflection is False


def test_everything_has_a_default() -> None:
    """A server starts without any setting, on loopback."""
    settings = load([], {})
    assert settings.listen == "127.0.0.1:50051"
    assert settings.metrics_listen == "127.0.0.1:9464"


def test_no_empty_default_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The help tells defaults where there are any."""
    with pytest.raises(SystemExit):
        load(["--help"], {})
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default 127.0.0.1:50051)" in shown
    assert "(default )" not in shown


def test_roles_of_clients_may_be_repeated() -> None:
    """Names of certificates may hold equal signs; the role is what follows the last."""
    settings = load(["--client-role", "CN=a=write", "--client-role", "b=admin"], {})
    assert settings.client_roles == {"CN=a": "write", "b": "admin"}
    assert load([], {"GROVE_CLIENT_ROLES": "a=read,b=write"}).client_roles == {"a": "read", "b": "write"}


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        pytest.param([], {"GROVE_NONSENSE": "1"}, "variable GROVE_NONSENSE: no such setting", id="variable"),
        pytest.param(["--reads-max", "0"], {}, "reads_max: .*greater than or equal to 1", id="bound"),
        pytest.param(["--drain-s", "soon"], {}, "drain_s: .*'soon'", id="type"),
        pytest.param(["--store", "etcd"], {}, "store: .*'sqlite'", id="choice"),
        pytest.param(["--client-role", "nobody"], {}, "'nobody' is not NAME=ROLE", id="role"),
        pytest.param(["--config", "/none.yaml"], {}, "No such file", id="no file"),
    ],
)
def test_mistakes_are_said_in_words(arguments: list[str], environment: dict[str, str], message: str) -> None:
    """Unknown keys and values out of bounds are errors that name the setting."""
    with pytest.raises(SettingsError, match=message):
        load(arguments, environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("nonsense: 1\n", "nonsense: no such setting", id="unknown"),
        pytest.param("- 1\n", "must be a mapping", id="list"),
        pytest.param("a: [\n", "not YAML", id="syntax"),
        pytest.param("reads_max: 1\nreads_max: 2\n", "reads_max is given twice .*line 2", id="twice"),
        pytest.param("client_roles: {a: read, a: admin}\n", "a is given twice", id="twice below"),
        pytest.param("#" * (2 << 20), "larger than", id="size"),
    ],
)
def test_mistakes_of_the_file_are_said_in_words(tmp_path: Path, text: str, message: str) -> None:
    """The file is as strict as the flags."""
    config = tmp_path / "grove.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(["--config", str(config)], {})


def test_variables_of_others_are_left_alone() -> None:
    """The client's variable and those of pods are not ours to judge."""
    load([], {"GROVE_SERVER": "x", "GROVE_PCS_NAME": "y", "GROVE_HEADLESS_SERVICE": "z"})


def test_all_mistakes_come_at_once() -> None:
    """Two wrong settings are two lines."""
    with pytest.raises(SettingsError) as caught:
        load(["--reads-max", "0", "--writes-max", "0"], {})
    assert len(str(caught.value).splitlines()) == 2


def test_settings_are_frozen_and_shown_without_names_of_clients() -> None:
    """What is printed at the start names no client."""
    settings = load(["--client-role", "secret-client=admin"], {})
    assert "secret-client" not in str(settings.shown())
    with pytest.raises(ValueError, match="frozen"):
        settings.reads_max = 5
    assert isinstance(settings, Settings)
