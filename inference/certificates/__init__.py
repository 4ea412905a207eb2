"""What EM arrived at: second derivatives, the rate of convergence, what each value explains.

In: a program compiled for its arguments, and an estimate. Out: a `Diagnosis`; the gradient and
Hessian of the objective in unconstrained coordinates. Read first: `diagnosis`. Each file imports
only those before it: coordinates, occupancy, curvature, em_map, diagnosis.
"""
