"""What is compiled quickly is compiled by every version of XLA, whichever options it knows."""

from emjax.run import compilation


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    known = compilation.known_options()
    monkeypatch.setattr(compilation, "QUICKLY", {"xla_of_another_version": 1, **known})
    compilation.known_options.cache_clear()
    assert compilation.known_options() == known
    assert known["xla_backend_optimization_level"] == 0
