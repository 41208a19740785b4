/* A uniform quantiser for normal numbers, whose levels are then entropy-coded (codec/uniform.h): what it costs and what it gives, and the
 * loops that do it.
 *
 *     level = sign(x) * floor(|x| / width + 1/2)            width = step * standard deviation
 *     y     = sign(level) * (|level| - shift) * width       0 for level 0
 *
 * Rounding is to the nearest. With the step free, no other dead zone gains more than 0.0005 bit on normal numbers at any rate, and adding
 * less than 1/2 costs more: 0.35 costs 0.02 bit at two bits. Where steps are large, their size alone makes the dead zone that is wanted.
 *
 * `shift` draws the restored values towards 0, as the mean of a cell lies. The estimate is later scaled so that its inner product with x
 * is that of x itself (dz_uniform_scale), so only what the scale cannot do is left to the shift: nothing below a step of 9/8.
 *
 * Steps are in standard deviations. Rate and noise are functions of the step alone, from tables and basic arithmetic: the same bits on
 * every machine. */
#ifndef DZ_NUMERIC_UNIFORM_QUANTISER_H
#define DZ_NUMERIC_UNIFORM_QUANTISER_H

#include <stddef.h>
#include <stdint.h>

#define DZ_UNIFORM_STEP_LEAST 0x1p-10 /* 12 bits a number */
#define DZ_UNIFORM_STEP_MOST 8.0      /* 0.001 bits */
#define DZ_UNIFORM_LEVEL_MOST 0xfffff /* no number of a block of 2^17 is sqrt(2^17) standard deviations away, or more */

/* Bits a number: the entropy of the levels. Falls with the step. */
double dz_uniform_bits(double step);

/* Noise to signal, E(y - x)^2 / E x^2, of the estimate whose inner product with x is that of x itself. Rises with the step. */
double dz_uniform_noise(double step);

/* What y is multiplied by to be that estimate. */
double dz_uniform_scale(double step);

/* The shift that goes with a step: a multiple of 2^-12, at most 1/2. */
float dz_uniform_shift(double step);

/* Inverses, rounded to 12 significant bits so that they are exact as f32; within the limits above. */
double dz_uniform_step_of_bits(double bits);
double dz_uniform_step_of_noise(double noise);

/* A standard deviation as 16 bits: the upper ones of its f32 after the sign, rounded. 0 for none; above DZ_STD_NUMBER_MOST (or NaN): it is
 * none of a finite number. At most 0.2 % off: noise goes with its square. */
#define DZ_STD_NUMBER_MOST 0xfeffU
unsigned dz_std_number(double std);
float dz_std_of_number(unsigned number);

/* Standard deviation about 0, added up in a fixed order. */
double dz_std_about_zero(const float *x, size_t count);

/* Levels of finite x, at most DZ_UNIFORM_LEVEL_MOST in size; width is a normal number. Returns how many are not 0. */
size_t dz_uniform_levels(int32_t *restrict level, const float *restrict x, float width, size_t count);

/* Restored values of levels, in f32, every operation rounded: 0, or (|level| - shift) * width with the level's sign. */
void dz_uniform_values(float *restrict y, const int32_t *restrict level, float width, float shift, size_t count);

#endif
