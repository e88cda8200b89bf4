"""What people see of a run: functions of its events."""
