#include "numeric/uniform_quantiser.h"

#include <math.h>

#include "numeric/kernels.h"

#define ROWS_A_UNIT 16
#define ROWS 113

/* Steps 1 to 8, 16 a unit: bits, noise and scale with the shift of the step (tests/unit/test_uniform.c integrates them). */
static const double TABLE[ROWS][3] = {
    {2.10483, 0.0833333, 1},        {2.02449, 0.0940755, 1},        {1.9495, 0.105469, 1},          {1.87931, 0.11749, 1.00801},
    {1.81345, 0.130165, 1.01669},   {1.75151, 0.143492, 1.02601},   {1.69312, 0.157473, 1.03595},   {1.63797, 0.172112, 1.0465},
    {1.58575, 0.187424, 1.05766},   {1.53616, 0.20343, 1.06944},    {1.48894, 0.220167, 1.0819},    {1.44381, 0.237681, 1.0951},
    {1.40053, 0.256036, 1.10913},   {1.35884, 0.275308, 1.12413},   {1.31852, 0.295588, 1.14021},   {1.27937, 0.316979, 1.15755},
    {1.2412, 0.339598, 1.17631},    {1.20385, 0.363568, 1.19668},   {1.16719, 0.389023, 1.21883},   {1.13111, 0.416103, 1.24296},
    {1.09553, 0.444955, 1.26926},   {1.0604, 0.475729, 1.29794},    {1.02566, 0.508584, 1.32921},   {0.991306, 0.54368, 1.36328},
    {0.957322, 0.581187, 1.40038},  {0.923716, 0.621279, 1.44073},  {0.890503, 0.66414, 1.48459},   {0.857705, 0.709963, 1.53223},
    {0.82535, 0.75895, 1.58393},    {0.793468, 0.811318, 1.64},     {0.762092, 0.867296, 1.70078},  {0.731255, 0.927132, 1.76665},
    {0.700989, 0.99109, 1.838},     {0.671326, 1.05945, 1.91528},   {0.642295, 1.13253, 1.99898},   {0.613923, 1.21066, 2.08964},
    {0.586236, 1.2942, 2.18786},    {0.559253, 1.38353, 2.2943},    {0.532996, 1.47909, 2.40968},   {0.50748, 1.58134, 2.53482},
    {0.482717, 1.69077, 2.67061},   {0.45872, 1.80794, 2.81805},    {0.435494, 1.93344, 2.97825},   {0.413046, 2.06792, 3.15245},
    {0.391377, 2.21209, 3.34201},   {0.370488, 2.36672, 3.54848},   {0.350376, 2.53266, 3.77355},   {0.331038, 2.71082, 4.01915},
    {0.312466, 2.90222, 4.28741},   {0.294653, 3.10796, 4.58073},   {0.277588, 3.32925, 4.90181},   {0.261261, 3.56741, 5.25367},
    {0.245658, 3.82389, 5.63971},   {0.230765, 4.10028, 5.94249},   {0.216567, 4.39834, 6.26896},   {0.203047, 4.71998, 6.62118},
    {0.190188, 5.0673, 7.00141},    {0.177973, 5.44264, 7.41214},   {0.166382, 5.84855, 7.8561},    {0.155397, 6.28784, 8.33631},
    {0.144997, 6.7636, 8.8561},     {0.135163, 7.27928, 9.41912},   {0.125875, 7.83863, 10.0294},   {0.117113, 8.44584, 10.6914},
    {0.108855, 9.10552, 11.4101},   {0.101082, 9.82277, 12.1909},   {0.093774, 10.6033, 13.0399},   {0.0869102, 11.4532, 13.9636},
    {0.0804711, 12.3796, 14.9696},  {0.0744372, 13.3902, 16.066},   {0.0687892, 14.4934, 17.262},   {0.0635082, 15.6988, 18.5676},
    {0.058576, 17.017, 19.9942},    {0.0539746, 18.4598, 21.5541},  {0.0496865, 20.0403, 23.2614},  {0.0456947, 21.773, 25.1316},
    {0.0419829, 23.6744, 27.1819},  {0.0385352, 25.7625, 29.4317},  {0.0353364, 28.0579, 31.9025},  {0.0323716, 30.5831, 34.6185},
    {0.0296267, 33.3638, 37.6066},  {0.0270882, 36.4284, 40.8969},  {0.0247432, 39.8089, 44.5233},  {0.0225791, 43.5412, 48.5237},
    {0.0205843, 47.6655, 52.9405},  {0.0187474, 52.2271, 57.8217},  {0.0170579, 57.277, 63.2207},   {0.0155054, 62.8724, 69.1981},
    {0.0140805, 69.0777, 75.8218},  {0.0127741, 75.9658, 83.1684},  {0.0115775, 83.6187, 91.3242},  {0.0104828, 92.1291, 100.387},
    {0.00948232, 101.602, 110.466}, {0.00856895, 112.155, 121.687}, {0.00773598, 123.922, 134.189}, {0.00697714, 137.056, 148.133},
    {0.00628659, 151.729, 163.699}, {0.00565883, 168.135, 181.092}, {0.00508877, 186.498, 200.544}, {0.00457165, 207.068, 222.319},
    {0.00410306, 230.132, 246.719}, {0.00367888, 256.018, 274.084}, {0.00329532, 285.097, 304.805}, {0.00294886, 317.794, 339.324},
    {0.00263623, 354.593, 378.148}, {0.00235443, 396.047, 421.855}, {0.00210069, 442.789, 471.107}, {0.00187245, 495.542, 526.657},
    {0.00166737, 555.136, 589.372}, {0.0014833, 622.52, 660.243},   {0.00131825, 698.786, 740.406}, {0.00117041, 785.183, 831.165},
    {0.00103813, 883.151, 934.019},
};
/* log2 in basic arithmetic, at most 1e-12 off: log(m) = 2 atanh((m - 1) / (m + 1)), m within a factor of sqrt(2) of 1. */
static double log2_exact(double x) {
    int exponent;
    double m = 2 * frexp(x, &exponent);
    exponent--;
    if (m > 1.4142135623730951) {
        m /= 2;
        exponent++;
    }
    double z = (m - 1) / (m + 1), zz = z * z, sum = 0;
    for (int k = 15; k >= 1; k -= 2) sum = sum * zz + 1.0 / k;
    return exponent + 2 * z * sum / 0.6931471805599453;
}

static double within(double step) {
    return step > DZ_UNIFORM_STEP_LEAST ? (step < DZ_UNIFORM_STEP_MOST ? step : DZ_UNIFORM_STEP_MOST) : DZ_UNIFORM_STEP_LEAST;
}

static double interpolated(double step, int column) {
    double at = (step - 1) * ROWS_A_UNIT;
    int row = (int)at;
    if (row > ROWS - 2) row = ROWS - 2;
    double part = at - row;
    return (1 - part) * TABLE[row][column] + part * TABLE[row + 1][column];
}

/* Up to a step of 1 the cells are so small that the error is as uniform noise independent of y: 2e-6 bits off at 1, and less below. The
 * last term is what that noise adds to the entropy. 2.047..: entropy of a normal number, log2(2 pi e) / 2. */
double dz_uniform_bits(double step) {
    step = within(step);
    if (step >= 1) return interpolated(step, 0);
    return 2.047095585180641 - log2_exact(step) + log2_exact(1 + step * step / 12) / 2;
}

double dz_uniform_noise(double step) {
    step = within(step);
    return step >= 1 ? interpolated(step, 1) : step * step / 12;
}

double dz_uniform_scale(double step) {
    step = within(step);
    return step >= 1 ? interpolated(step, 2) : 1;
}

float dz_uniform_shift(double step) {
    double shift = 0.16 * (step - 1.125); /* near enough to the best: less than 0.0001 bit is lost */
    return !(shift > 0) ? 0 : shift > 0.5 ? 0.5f : (float)(floor(shift * 4096 + 0.5) / 4096);
}

static double to_12_bits(double x) {
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(rint(ldexp(mantissa, 12)), exponent - 12);
}

/* The step where a function that falls (sign 1) or rises (-1) with it crosses `value`. */
static double solve(double (*of)(double), double value, int sign) {
    double low = DZ_UNIFORM_STEP_LEAST, high = DZ_UNIFORM_STEP_MOST;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(sign * of(mid) > sign * value ? &low : &high) = mid;
    }
    return to_12_bits(low);
}

double dz_uniform_step_of_bits(double bits) { return solve(dz_uniform_bits, bits, 1); }
double dz_uniform_step_of_noise(double noise) { return solve(dz_uniform_noise, noise, -1); }

unsigned dz_std_number(double std) {
    uint32_t bits = std > 0 ? dz_float_bits((float)std) : std <= 0 ? 0 : 0x7f800000U;
    return bits < 0x7f800000U ? (bits + 0x4000) >> 15 : 0xffff;
}

float dz_std_of_number(unsigned number) { return dz_bits_to_float((uint32_t)number << 15); }

double dz_std_about_zero(const float *x, size_t count) {
    double sum[DZ_LANES] = {0};
    dz_kernels()->energy(sum, x, count);
    return count ? sqrt(dz_lanes_total(sum) / (double)count) : 0;
}

size_t dz_uniform_levels(int32_t *restrict level, const float *restrict x, float width, size_t count) {
    return dz_kernels()->uniform_levels(level, x, width, (float)DZ_UNIFORM_LEVEL_MOST, count);
}

void dz_uniform_values(float *restrict y, const int32_t *restrict level, float width, float shift, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int32_t sign = level[i] >> 31, size = (level[i] ^ sign) - sign;
        uint32_t value = dz_float_bits(((float)size - shift) * width) ^ ((uint32_t)sign & 0x80000000U);
        y[i] = dz_bits_to_float(size == 0 ? 0 : value);
    }
}
