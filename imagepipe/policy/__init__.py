"""The IAM policy that a spec needs: what each stage of its build asks of AWS, and no more."""
