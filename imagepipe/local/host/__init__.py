"""This computer: processes, control groups, loop devices, ports."""
