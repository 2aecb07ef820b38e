"""Runs every function that is named `test_…`, and says which failed. The last line is `N passed, N failed`."""

import sys
import traceback

import files
import rehearsal

passed, failed = 0, 0
for module in (files, rehearsal):
    for name, test in list(vars(module).items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            passed += 1
            print(f"{name[5:]} ... ok", flush=True)
        except Exception:
            failed += 1
            print(f"{name[5:]} ... FAILED", flush=True)
            traceback.print_exc(file=sys.stdout)
print(f"deploy: {passed} passed, {failed} failed")
sys.exit(failed != 0)
