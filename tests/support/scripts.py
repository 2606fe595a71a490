"""Scripts of the repository as modules."""

import sys
from contextlib import contextmanager
from importlib import util


@contextmanager
def loaded(path, name=None):
    """The script at `path`, found by its path since its name might find another module; it may import from its own
    folder. Afterwards neither is known any more."""
    name = name or path.stem
    folder, before = str(path.parent), set(sys.modules)
    sys.path.insert(0, folder)
    spec = util.spec_from_file_location(name, path)
    module = sys.modules[name] = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(folder)
        beside = {each.stem for each in path.parent.glob("*.py")} & (set(sys.modules) - before)
        for known in {name, *beside}:
            sys.modules.pop(known, None)
