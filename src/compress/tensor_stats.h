/* What the first stage measures of a lossy tensor: over its common elements, with delta d = f32(task) - f32(base) and base w. */
#ifndef DZ_COMPRESS_TENSOR_STATS_H
#define DZ_COMPRESS_TENSOR_STATS_H

#include "numeric/kernels.h"

typedef struct dz_tensor_stats {
    dz_range range;      /* of d */
    double abs_sum;      /* sum of |d|; 0 unless the method has `sizes` */
    double delta_energy; /* sum of d^2 */
    double base_energy;  /* sum of w^2 */
    double base_max;     /* largest |w| */
    double changed;      /* elements with d != 0; 0 unless the method has `sizes` */
    double exact_bits;   /* estimate of the exact coding, in bits: sampled, within a third or so */
    int chained;         /* w is the parent's tensor as restored; base_energy is the base's all the same */
    double whole;        /* sum of the squared delta from the base; delta_energy unless chained */
    double step, old;    /* chained: energies of task - parent and of restored parent - parent; without the parent's model, of d and 0 */
    double cross;        /* chained: sum of the products of these two */
} dz_tensor_stats;

/* |task - (kept * parent + (1 - kept) * restored parent)|^2: of what is coded where a share `kept` of the parent's noise is left as it is.
 */
static inline double dz_chain_energy(const dz_tensor_stats *s, double kept) {
    double part = 1 - kept, energy = s->step + part * part * s->old - 2 * part * s->cross;
    return energy > 0 ? energy : 0;
}

/* Energy of what the restored tensor is off: that is coded with noise to signal `nsr` at gain `gain` (METHODS.md "Chains"). */
static inline double dz_chain_error(const dz_tensor_stats *s, double kept, double nsr, double gain) {
    double left = 1 - gain * (1 - kept), lost = 1 - gain;
    double error = left * left * s->old + lost * lost * s->step - 2 * left * lost * s->cross + gain * gain * nsr * dz_chain_energy(s, kept);
    return error > 0 ? error : 0;
}

#endif
