"""Writes the CloudWatch agent's configuration; enables the agent where it is installed.

Format: Amazon CloudWatch user guide, "Manually create or edit the CloudWatch agent configuration file".
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

RETENTION = {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
FOLDER = Path("/opt/aws/amazon-cloudwatch-agent/etc")

namespace, interval, retention, metrics = sys.argv[1:]
logs = json.loads(os.environ["LOGS"])
if int(retention) not in RETENTION:
    sys.exit(f"cloudwatch-agent: retention_days {retention}: CloudWatch has {', '.join(map(str, sorted(RETENTION)))}")
for path in logs:
    if not path.startswith("/"):
        sys.exit(f"cloudwatch-agent: logs: {path}: not an absolute path")
config = {"agent": {"metrics_collection_interval": int(interval), "run_as_user": "root"}}
if metrics == "true":
    config["metrics"] = {
        "namespace": namespace,
        "append_dimensions": {"InstanceId": "${aws:InstanceId}"},
        "metrics_collected": {
            "mem": {"measurement": ["mem_used_percent"]},
            "swap": {"measurement": ["swap_used_percent"]},
            "disk": {
                "measurement": ["used_percent"],
                "resources": ["*"],
                "ignore_file_system_types": ["tmpfs", "overlay"],
            },
        },
    }
if logs:
    entries = [
        {
            "file_path": path,
            "log_group_name": group,
            "log_stream_name": "{instance_id}",
            "retention_in_days": int(retention),
        }
        for path, group in sorted(logs.items())
    ]
    config["logs"] = {"logs_collected": {"files": {"collect_list": entries}}}
text = json.dumps(config, indent=2) + "\n"
FOLDER.mkdir(parents=True, exist_ok=True)
file = FOLDER / "amazon-cloudwatch-agent.json"
if not file.exists() or file.read_text() != text:
    print(f"writing {file}")
    file.write_text(text)
    file.chmod(0o644)
if shutil.which("amazon-cloudwatch-agent-ctl") or (FOLDER.parent / "bin/amazon-cloudwatch-agent-ctl").exists():
    subprocess.run(["systemctl", "enable", "amazon-cloudwatch-agent"], check=True)
else:
    print("the agent is not installed: give its .deb, or install it at the first boot; it will read this file")
