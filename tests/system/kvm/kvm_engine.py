#!/usr/bin/env python3
"""The hardware engine, in an outer system with KVM: see rig.py and inside/engine.py."""
import sys

import rig

rig.run(sys.argv[1], "system/kvm/inside/engine.py",
        files={sys.argv[1] + "/tests/system/hostile_x86_64": "/build/hostile_x86_64",
               sys.argv[1] + "/tests/system/kvm_dirty": "/build/tests/system/kvm_dirty"})
