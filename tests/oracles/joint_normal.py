"""log Z of quadratic forms by the joint normal of all coordinates of all Gaussian elements.

For every configuration of the discrete latents, one by one, in NumPy alone and with inverses of
covariances: nothing of it is shared with the elimination that it judges.
"""

import itertools
from types import SimpleNamespace

import numpy as np


def joint_normal(pieces, factors, conditionals, variables):
    """Return log Z and the expected statistics of each piece.

    `factors`: those on discrete latents alone. Multiplicities are not known here.
    """
    gaussians = list(dict.fromkeys(c.own.source for c in conditionals))
    discrete = [v for v in variables.values() if v.name not in gaussians]
    labels = [(v.name, e) for v in discrete for e in range(v.count)]
    sizes = [variables[name].size for name, _ in labels]
    logs, moments = [], []
    for values in itertools.product(*map(range, sizes)):
        chosen = dict(zip(labels, values, strict=True))
        system = _System(gaussians, variables, chosen)
        mean, covariance = system.prior(conditionals)
        log_density = sum(value for f in factors for _, _, value in system.entries(f))
        log_integral, posterior = system.integral(pieces, mean, covariance)
        logs.append(log_density + log_integral)
        moments.append([system.expected(piece, *posterior) for piece in pieces])
    log_z = np.logaddexp.reduce(logs)
    chances = np.exp(np.array(logs) - log_z)
    expected = [
        sum(p * m[i] for p, m in zip(chances, moments, strict=True)) for i in range(len(pieces))
    ]
    return SimpleNamespace(log_z=log_z, expected=expected)


class _System:
    def __init__(self, gaussians, variables, chosen):
        self.start, self.size = {}, 0
        for name in gaussians:
            self.start[name] = self.size
            self.size += variables[name].count * variables[name].size
        self.chosen = chosen

    def entries(self, factor, tail=()):
        """Yield the places in the joint vector, the cell, and the value of all entries."""
        array = np.asarray(factor.array)
        rank = len(factor.shape)
        full = factor.shape + tuple(axis.size for axis in factor.axes) + tail
        array = np.broadcast_to(array, full)
        numbers = [
            np.broadcast_to(axis.index.dense(factor.shape), factor.shape) for axis in factor.axes
        ]
        for cell in np.ndindex(*full):
            places, is_chosen = [], True
            for axis, number, value in zip(factor.axes, numbers, cell[rank:], strict=False):
                element = number[cell[:rank]]
                if axis.source in self.start:
                    places.append(self.start[axis.source] + element * axis.size + value)
                else:
                    is_chosen &= self.chosen[axis.source, element] == value
            if is_chosen:
                yield places, cell, array[cell]

    def prior(self, conditionals):
        """Return the mean and the covariance of all coordinates."""
        shift, mixing = np.zeros(self.size), np.zeros((self.size, self.size))
        scale = np.zeros((self.size, self.size))
        for conditional in conditionals:
            for (place,), _, value in self.entries(conditional.mean):
                shift[place] += value
            for (place,), cell, value in self.entries(conditional.scale, (conditional.own.size,)):
                # columns are those of the element's own noise
                first = place - cell[-2]
                scale[place, first + cell[-1]] += value
            for coefficients in conditional.coefficients:
                for (row, column), _, value in self.entries(coefficients):
                    mixing[row, column] += value
        solved = np.linalg.inv(np.eye(self.size) - mixing)
        return solved @ shift, solved @ scale @ scale.T @ solved.T

    def integral(self, pieces, mean, covariance):
        """Return log E[exp of the exponent], and mean and covariance under it."""
        linear, precision = np.zeros(self.size), np.zeros((self.size, self.size))
        for piece in pieces:
            for places, _, value in self.entries(piece):
                if len(places) == 1:
                    linear[places[0]] += value
                else:
                    precision[places[0], places[1]] -= value
                    precision[places[1], places[0]] -= value
        inverse = np.linalg.inv(covariance)
        total = inverse + precision
        posterior = np.linalg.inv(total)
        information = linear + inverse @ mean
        center = posterior @ information
        log_determinants = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(total)[1]
        exponent = information @ center - mean @ inverse @ mean - log_determinants
        return exponent / 2, (center, posterior)

    def expected(self, piece, mean, covariance):
        """Return the derivative of log Z with respect to the array of a piece."""
        second = covariance + np.outer(mean, mean)
        full = piece.shape + tuple(axis.size for axis in piece.axes)
        statistic = np.zeros(full)
        for places, cell, _ in self.entries(piece):
            statistic[cell] = mean[places[0]] if len(places) == 1 else second[tuple(places)]
        # an entry of an axis of length 1 stands for all along it
        array = np.asarray(piece.array)
        unit = tuple(d for d in range(array.ndim) if array.shape[d] == 1 and full[d] > 1)
        return statistic.sum(unit, keepdims=True)
