#include "compress/method.h"

#include <math.h>

static const dz_method *const METHODS[] = {&DZ_ULTRADELTA, &DZ_AUTO, &DZ_DARE, &DZ_MAGNITUDE, &DZ_BITDELTA};

const dz_method *dz_method_of(dz_method_id id) {
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++) {
        if (METHODS[i]->id == id) return METHODS[i];
    }
    return &DZ_AUTO;
}

double dz_method_inputs(const dz_plan *plan, const dz_tensor_pair *pair) {
    dz_matrix_view view = dz_plan_view(plan, pair);
    return fmax(1, (double)dz_view_inputs(&view));
}

double dz_significant(double x, int bits) {
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(rint(ldexp(mantissa, bits)), exponent - bits);
}

double dz_method_density_level(const dz_recipe *recipe) { return 1 - recipe->sparsity; }

double dz_method_density_relevel(double level, double change) { return fmin(1, level * change); }
