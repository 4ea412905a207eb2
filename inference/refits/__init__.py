"""The program fitted again: to other weights, other data, other numbers of components.

In: an `EM`, an estimate, and its data. Out: standard errors, information criteria,
cross-validation, models side by side. Read first: `bootstrap`. Each file imports only those before
it: pointwise, sample_counts, survey_design, bootstrap, cluster_draws, cross_validation,
information_criteria, scores, model_choice, students_t, standard_errors, information, spread,
uncertainty.
"""
