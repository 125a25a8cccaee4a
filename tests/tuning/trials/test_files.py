import json
from pathlib import Path

import pytest

from kseq.tuning.trials.files import replacing, write_json


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, [1, 2])
    with pytest.raises(TypeError):
        write_json(path, [3, object()])
    assert json.loads(path.read_text()) == [1, 2]
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        Path(temporary).write_text("half")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
