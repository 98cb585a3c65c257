#!/usr/bin/env python3
"""A hostile guest on the hardware engine, ACCESSES (10^7) of SEED: not part of `make test`, which makes fewer. hostile.py BUILD"""
import os
import sys

import rig

rig.run(sys.argv[1], "system/hostile/hostile.py", files={sys.argv[1] + "/tests/system/hostile_x86_64": "/build/hostile_x86_64"},
        environment={"ACCESSES": os.environ.get("ACCESSES", "10000000"), "SEED": os.environ.get("SEED", "1")}, timeout=7200)
