#include "numeric/slq_quadrature.h"

#include <assert.h>
#include <float.h>
#include <math.h>

/* The quadrature.
 *
 * A probe z of unit length weighs the singular values of A by mu = sum_i (v_i . z)^2 delta(sigma_i), and dim * E[int s dmu(s)] is the trace
 * norm. The coefficients fill a bidiagonal matrix B, and the eigenvalues of B^T B are the squared nodes of a rule for mu (Golub and Kahan
 * 1965; Golub and Meurant 2010, ch. 6). With n coefficients: odd n  (the last one an alpha): the Gauss rule; for the square root it errs
 * upwards; even n (the last one a beta): the Gauss-Radau rule with a node at 0; it errs downwards. So the truth is bracketed. Both are
 * Gauss rules, of n + 1 nodes, for |s| against mu made symmetric about 0. */

#define MAX_NODES (DZ_SLQ_MAX_COEFS / 2 + 1)

/* Implicit QL with Wilkinson shifts (as EISPACK tql2), carrying only the first row of the eigenvectors. Offdiagonals below machine
 * precision times the largest entry are dropped: an absolute criterion, since the rank of B^T B may be less than its size. */
static void ql_sweep(double *d, double *e, double *z, int l, int m) {
    double g = (d[l + 1] - d[l]) / (2 * e[l]);
    double r = sqrt(g * g + 1);
    g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
    double s = 1, c = 1, p = 0;
    for (int i = m - 1; i >= l; i--) {
        double f = s * e[i], b = c * e[i];
        r = sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r == 0) { /* split by underflow: recover and start again */
            d[i + 1] -= p;
            e[m] = 0;
            return;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        f = z[i + 1];
        z[i + 1] = s * z[i] + c * f;
        z[i] = c * z[i] - s * f;
    }
    d[l] -= p;
    e[l] = g;
    e[m] = 0;
}

void dz_tridiagonal_eigen(double *d, double *e, double *z, int size) {
    double largest = 0;
    for (int i = 0; i < size; i++) largest = fmax(largest, fmax(fabs(d[i]), fabs(e[i])));
    for (int l = 0; l < size; l++) {
        for (int sweep = 0; sweep < 60; sweep++) {
            int m = l;
            while (m + 1 < size && fabs(e[m]) > DBL_EPSILON * largest) m++;
            if (m == l) break;
            ql_sweep(d, e, z, l, m);
        }
    }
}

int dz_slq_gauss(const double *coef, int count, double *sigma, double *weight) {
    double e[MAX_NODES];
    int size = count / 2 + 1;
    assert(count >= 0 && size <= MAX_NODES);
    for (int i = 0; i < size; i++) { /* B^T B */
        double alpha = 2 * i < count ? coef[2 * i] : 0, beta = 2 * i + 1 < count ? coef[2 * i + 1] : 0, above = i > 0 ? coef[2 * i - 1] : 0;
        sigma[i] = alpha * alpha + above * above;
        e[i] = alpha * beta;
        weight[i] = i == 0;
    }
    dz_tridiagonal_eigen(sigma, e, weight, size);
    for (int i = 0; i < size; i++) {
        sigma[i] = sigma[i] > 0 ? sqrt(sigma[i]) : 0;
        weight[i] *= weight[i];
    }
    return size;
}

/* The rules from so many coefficients of all probes, each probe with weight 1 / probes. A probe that ended keeps its exact rule. */
typedef struct rule {
    int count;
    double sigma[DZ_SLQ_MAX_PROBES * MAX_NODES], weight[DZ_SLQ_MAX_PROBES * MAX_NODES];
} rule;

static void make_rule(rule *out, const dz_slq_probe *probe, int probes, int ncoefs) {
    out->count = 0;
    for (int j = 0; j < probes; j++) {
        int n = probe[j].ended || ncoefs > probe[j].count ? probe[j].count : ncoefs;
        n = dz_slq_gauss(probe[j].coef, n, out->sigma + out->count, out->weight + out->count);
        for (int i = 0; i < n; i++) out->weight[out->count++] /= probes;
    }
}

static double mean_sigma(const rule *r) {
    double sum = 0;
    for (int i = 0; i < r->count; i++) sum += r->weight[i] * r->sigma[i];
    return sum;
}

/* Ratio kappa of the two rules' errors, upwards (Gauss) to downwards (Radau): truth = (kappa * gauss + radau) / (1 + kappa).
 * Where singular values reach down to 0 with positive density (square matrices), both errors are those of the midpoint and the trapezoid
 * rule at the kink of |s|: they fall as 1 / (ncoefs + 2)^2 and are twice as large with the node on the kink. Elsewhere (rectangular: a gap
 * above 0; rank deficient: an atom at 0) the ratio is seen from what one step less would have given, corrected by what that shows at a
 * kink. */
static double error_ratio(double gauss_change, double radau_change, int ncoefs) {
    double g = ncoefs + 1, r = ncoefs + 2, at_kink = 2 * (g * g) / (r * r);
    if (!(gauss_change < 0 && radau_change > 0)) return at_kink;
    double a = 1 / ((g - 2) * (g - 2)) - 1 / (g * g), b = 1 / ((r - 2) * (r - 2)) - 1 / (r * r);
    double ratio = radau_change / -gauss_change * (at_kink * a / (2 * b));
    return fmin(fmax(ratio, 0.5 * at_kink), 20 * at_kink);
}

/* Weighted sums over both rules at once, for the regression of s on s^2. */
typedef struct moments {
    double w, x, f, xx, xf, ff;
} moments;

static void add_moments(moments *to, const rule *r, double share, double tilt, double centre, double least) {
    for (int i = 0; i < r->count; i++) {
        double f = r->sigma[i], x = f * f, w = r->weight[i] * (1 + tilt * (x - centre));
        w = (w > least ? w : least) * share;
        to->w += w;
        to->x += w * x;
        to->f += w * f;
        to->xx += w * x * x;
        to->xf += w * x * f;
        to->ff += w * f * f;
    }
}

static moments pooled_moments(const rule *gauss, const rule *radau, double ratio, double tilt, double centre, double least) {
    moments m = {0};
    add_moments(&m, gauss, ratio / (1 + ratio), tilt, centre, least);
    add_moments(&m, radau, 1 / (1 + ratio), tilt, centre, least);
    m.x /= m.w;
    m.f /= m.w;
    m.xx = m.xx / m.w - m.x * m.x;
    m.xf = m.xf / m.w - m.x * m.f;
    m.ff = m.ff / m.w - m.f * m.f;
    return m;
}

/* The trace of A^T A is known: ||A||_F^2. So the linear function closest to the square root is integrated exactly and only the rest is left
 * to chance (a control variate); for a Marchenko-Pastur spectrum that takes 93 % of the variance away. The slope must not depend on whether
 * this probe happens to see more or less than its share of ||A||_F^2, or the estimate is biased by O(1 / dim): the weights are first
 * tilted so that they integrate s^2 to the known value. An isolated large singular value may be nearly missed by a probe, but its true
 * weight is at least 1 / dim.
 * Variance of a Rademacher probe: at most 2 * sum over the eigenvalues of the squared residual (Hutchinson). */
dz_slq_estimate dz_slq_evaluate(const dz_slq_probe *probe, int probes, int ncoefs, double dim, double square_sum,
                                const dz_slq_estimate *before) {
    rule gauss, radau;
    dz_slq_estimate now = {0}, last;
    if (before) {
        last = *before;
    } else {
        make_rule(&radau, probe, probes, ncoefs - 2);
        make_rule(&gauss, probe, probes, ncoefs - 3);
        last = (dz_slq_estimate){.gauss = mean_sigma(&gauss), .radau = mean_sigma(&radau)};
    }
    make_rule(&radau, probe, probes, ncoefs);
    make_rule(&gauss, probe, probes, ncoefs - 1);
    now.gauss = mean_sigma(&gauss);
    now.radau = mean_sigma(&radau);
    double ratio = error_ratio(now.gauss - last.gauss, now.radau - last.radau, ncoefs);
    double raw = (ratio * now.gauss + now.radau) / (1 + ratio);

    double seen = 0, known = square_sum / dim; /* mean of s^2: as the probes see it, and the truth */
    for (int j = 0; j < probes; j++) seen += probe[j].count ? probe[j].coef[0] * probe[j].coef[0] / probes : 0;
    moments m = pooled_moments(&gauss, &radau, ratio, 0, 0, 0);
    double least = 1 / dim / probes, tiny = 1e-12 * m.x * m.x;
    double slope = m.x > 0 ? m.f / m.x : 0; /* of a single node: the line through the origin, as for rank 1 */
    if (m.xx > tiny) {
        double limit = 1 / (4 * sqrt(m.xx)), tilt = fmin(fmax((known - m.x) / m.xx, -limit), limit);
        m = pooled_moments(&gauss, &radau, ratio, tilt, m.x, least);
        if (m.xx > tiny) slope = m.xf / m.xx;
    }
    double residual = m.ff - 2 * slope * m.xf + slope * slope * m.xx;
    now.norm = dim * (raw - slope * (seen - known));
    now.variance = residual > 0 ? 2 * dim * residual / probes : 0;
    return now;
}
