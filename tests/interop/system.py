"""System tests: the desktop host with a real tun device, real programs and a real V2Ray, in namespaces of our own.

`system.py [NAME...]` runs the cases whose names hold one of the words; without words, all. Ends with `N passed, N failed`.
"""

import os
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))
sys.path.insert(0, HERE)
import lab
import cases_cost
import cases_faults
import cases_host
import cases_matrix
import cases_server
import cases_socks
import cases_tun
import cases_ws


def main():
    lab.enter()
    words = sys.argv[1:]
    modules = (cases_host, cases_socks, cases_tun, cases_server, cases_ws, cases_matrix, cases_cost, cases_faults)
    cases = [case for module in modules for case in module.CASES]
    cases = [case for case in cases if not words or any(word in case.__name__ for word in words)]
    passed = failed = 0
    for case in cases:
        start = time.monotonic()
        try:
            case()
            passed += 1
            print(f"ok      {case.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception as error:  # a failed case must not hide the next one
            failed += 1
            print(f"FAILED  {case.__name__}: {error}", flush=True)
            print(lab.last_words(), flush=True)
            if not isinstance(error, lab.LabError):
                traceback.print_exc()
        finally:
            lab.end_all()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lab.LabError as error:
        sys.exit(f"system tests: {error}")
    except KeyboardInterrupt:
        print("system tests: interrupted; cleaning up", file=sys.stderr)
        sys.exit(130)
