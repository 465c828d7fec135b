"""Settings come from MODELWRIGHT_* and every wrong one is named."""

import pytest

from modelwright.app.settings import Settings, SettingsError


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.from_environment({})
    assert settings.namespace == "modelwright-system"
    assert (settings.qps, settings.burst, settings.workers) == (200, 400, 8)
    assert settings.lease_name == "modelwright-operator"
    assert (settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds) == (15, 10, 2)
    assert settings.settle_seconds == 5
    assert settings.watch_namespaces == ()


def test_values_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"MODELWRIGHT_WATCH_NAMESPACES": "a, b,,", "MODELWRIGHT_QPS": "7.5", "MODELWRIGHT_GATEWAY_PROBE": "Off"}
    )
    assert settings.watch_namespaces == ("a", "b")
    assert settings.qps == 7.5
    assert settings.gateway_probe == "Off"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODELWRIGHT_QPS", "0"),
        ("MODELWRIGHT_QPS", "many"),
        ("MODELWRIGHT_WORKERS", "0"),
        ("MODELWRIGHT_GATEWAY_PROBE", "Maybe"),
        ("MODELWRIGHT_HTTP_PORT", "70000"),
        ("MODELWRIGHT_LOG_LEVEL", "LOUD"),
        ("MODELWRIGHT_NAMESPACE", ""),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


def test_lease_times_must_fit_together() -> None:
    with pytest.raises(SettingsError, match="MODELWRIGHT_LEASE_RENEW_SECONDS"):
        Settings.from_environment({"MODELWRIGHT_LEASE_RENEW_SECONDS": "20"})


def test_what_kubernetes_puts_there_for_a_service_of_our_name_does_no_harm() -> None:
    Settings.from_environment({"MODELWRIGHT_SERVICE_HOST": "10.0.0.1", "MODELWRIGHT_PORT": "tcp://10.0.0.1:80"})
