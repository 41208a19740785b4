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

int dz_chain_is_better(const dz_method *method, const dz_recipe *recipe, const dz_tensor_stats *s) {
    if (method->id != DZ_METHOD_AUTO) return s->delta_energy < s->whole; /* the parent as restored is all there is to it */
    double nsr =
        recipe->quality == DZ_QUALITY_NONE ? 1 / expm1(2 * log(2) * method->first_level(recipe)) : dz_recipe_limits(recipe).to_delta;
    if (isnan(nsr) || nsr > 1e6) nsr = 1e6;
    return s->step + s->old / (1 + nsr) < s->whole;
}
