"""log Z of quadratic forms by the joint normal of all noise: right where variances are zero, too.

For every configuration of the discrete latents, one by one, in NumPy alone: nothing of it is shared
with the elimination that it judges. Multiplicities are not known here.
"""

import itertools

import numpy as np

from emjax.tables.named import Coordinates


class JointNormal:
    """All Gaussian latents as one vector, for each configuration of the discrete ones.

    `pieces`: factors that read Gaussian latents, and those on discrete ones alone.
    """

    def __init__(self, pieces, conditionals, variables):
        self.pieces, self.conditionals, self.variables = pieces, conditionals, variables
        gaussian = [name for name in variables if self._conditionals(name)]
        self.start, self.size = {}, 0
        for name in gaussian:
            self.start[name] = self.size
            self.size += variables[name].count * variables[name].size
        cells = []
        for name, variable in variables.items():
            if name not in gaussian:
                for element in range(variable.count):
                    cells.append([(name, element, value) for value in range(variable.size)])
        self.configurations = []
        for values in itertools.product(*cells):
            self.configurations.append({(name, element): v for name, element, v in values})
        found = [self._integral(configuration) for configuration in self.configurations]
        self.values = np.array([value for value, _, _ in found])
        self.moments = [(mean, second) for _, mean, second in found]

    @property
    def log_partition(self):
        return np.logaddexp.reduce(self.values)

    def gradient(self):
        """Return the expected value of what each piece is a table of."""
        weights = np.exp(self.values - self.log_partition)
        gradients = [np.zeros(piece.array.shape) for piece in self.pieces]
        for weight, configuration, (mean, second) in zip(
            weights, self.configurations, self.moments, strict=True
        ):
            for piece, gradient in zip(self.pieces, gradients, strict=True):
                for cell, places in self._cells(piece, configuration):
                    moments = [1.0, mean, second][len(places)]
                    gradient[cell] += weight * (moments[np.ix_(*places)] if places else 1.0)
        return gradients

    def _conditionals(self, name):
        return [c for c in self.conditionals if c.own.source == name]

    def _cells(self, factor, configuration, unnamed=0):
        """Yield where each element's entries are, and the coordinates that they belong to."""
        for element in np.ndindex(*factor.shape):
            places, values = [], []
            for axis in factor.axes:
                index = np.broadcast_to(axis.index.dense(factor.shape), factor.shape)[element]
                if isinstance(axis, Coordinates):
                    first = self.start[axis.source] + index * axis.size
                    places.append(np.arange(first, first + axis.size))
                    values.append(slice(None))
                else:
                    value = configuration[axis.source, index]
                    # what does not vary with a latent has length 1
                    length = factor.array.shape[len(factor.shape) + len(values)]
                    values.append(value if length > 1 else 0)
            lengths = factor.array.shape[: len(factor.shape)]
            row = tuple(0 if n == 1 else i for i, n in zip(element, lengths, strict=True))
            yield (*row, *values), places

    def _integral(self, configuration):
        mean, gain = np.zeros(self.size), np.zeros((self.size, self.size))
        scale = np.zeros((self.size, self.size))
        for conditional in self.conditionals:
            for cell, (own,) in self._cells(conditional.mean, configuration):
                mean[own] += np.asarray(conditional.mean.array)[cell]
            for cell, (own,) in self._cells(conditional.scale, configuration):
                scale[np.ix_(own, own)] += np.asarray(conditional.scale.array)[cell]
            for factor in conditional.coefficients:
                for cell, (own, other) in self._cells(factor, configuration):
                    gain[np.ix_(own, other)] += np.asarray(factor.array)[cell]
        total, linear, quadratic = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        for piece in self.pieces:
            for cell, places in self._cells(piece, configuration):
                table = np.asarray(piece.array)[cell]
                if not places:
                    total += table
                elif len(places) == 1:
                    linear[places[0]] += table
                else:
                    quadratic[np.ix_(*places)] -= table
                    quadratic[np.ix_(*places[::-1])] -= table.T
        solved = np.linalg.inv(np.eye(self.size) - gain)
        mean, scale = solved @ mean, solved @ scale
        precision = np.eye(self.size) + scale.T @ quadratic @ scale
        covariance = scale @ np.linalg.solve(precision, scale.T)
        slope = linear - quadratic @ mean
        total += (linear + slope) @ mean / 2 + slope @ covariance @ slope / 2
        total -= np.linalg.slogdet(precision)[1] / 2
        mean = mean + covariance @ slope
        return total, mean, covariance + np.outer(mean, mean)
