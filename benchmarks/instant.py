"""Builds on a cloud that answers at once, against Debian's packer: one build, and twenty at once."""

from __future__ import annotations

import statistics
import sys
from endpoint import FAST, Cost, Endpoint, arguments, cloud, table
def main():
    runs = arguments("x", 3).runs
    with cloud(driver="sshd") as end:
        spec, template = end.spec(), end.template("bench")
        for n in range(runs):
            c=end.run(end.imagepipe(spec)); print("imagepipe", c, end.admin("GET","calls"))
            if n==0: print(end.output)
            c=end.run([end.packer,"build",str(template)], FAST); print("packer", c, end.admin("GET","calls"))
            if n==0: print(end.output)
main()
