"""What EM arrived at: second derivatives, the rate of convergence, what each value explains.

In: a program bound to data, and an estimate. Out: a `Diagnosis`; the gradient and Hessian of the
objective in unconstrained coordinates. Read first: `estimate`, then `diagnose`. Each file imports
only those before it: tangents, charts, coordinates, curvature, eigenvalues, neighborhood,
derivatives, estimate, lines, differences, tangent_space, evaluation, boundary, diagnosis, bases,
verdict, diagnose.
"""
