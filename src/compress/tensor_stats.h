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
} dz_tensor_stats;

#endif
