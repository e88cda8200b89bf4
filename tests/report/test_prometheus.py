from __future__ import annotations

import re
from dataclasses import replace

from imagepipe.report.prometheus import prometheus
from tests.report.runs import failed, succeeded

SAMPLE = re.compile(r'imagepipe_last_run_\w+(\{\w+="(?:[^"\\\n]|\\.)*"(,\w+="(?:[^"\\\n]|\\.)*")*\})? -?[0-9.e+]+')


def test_every_line_is_a_comment_or_a_sample() -> None:
    for report in (succeeded(), failed()):
        for line in prometheus(report).splitlines():
            assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line


def test_success_and_failure_are_told() -> None:
    assert "imagepipe_last_run_success 1\n" in prometheus(succeeded())
    assert 'imagepipe_last_run_spec_success{spec="web"} 1\n' in prometheus(succeeded())
    assert "imagepipe_last_run_success 0\n" in prometheus(failed())
    assert 'imagepipe_last_run_spec_success{spec="web"} 0\n' in prometheus(failed())


def test_stages_have_their_durations() -> None:
    assert 'imagepipe_last_run_stage_duration_seconds{spec="web",stage="launch"} 10\n' in prometheus(failed())


def test_a_name_cannot_end_its_label() -> None:
    report = failed()
    odd = replace(report.stages[0], name='a"b\\c\nd')
    text = prometheus(replace(report, stages=(odd,)))
    assert 'stage="a\\"b\\\\c\\nd"' in text


def test_no_label_has_the_id_of_the_run() -> None:
    assert succeeded().run not in prometheus(succeeded())
