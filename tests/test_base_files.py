"""base.files: outputs are whole or not there."""

from pathlib import Path

import pytest

from base.files import whole


@pytest.mark.parametrize(("written", "left"), [(b"some", b"some"), (b"", b"before")])
def test_what_is_kept_of_an_output_that_is_interrupted(written: bytes, left: bytes, tmp_path: Path):
    """What was written so far; where that is nothing, the file that was there before."""
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a", (KeyboardInterrupt,)) as temporary:
        temporary.write_bytes(written)
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == left and len(list(tmp_path.iterdir())) == 1
