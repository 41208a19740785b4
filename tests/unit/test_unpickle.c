/* Hostile pickles: nothing is run, and what is not allowed is refused by its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/torch/unpickle.h"

/* Pickles are written as text with escapes; sizeof - 1 because they hold zero bytes. */
#define P(text) text, sizeof(text) - 1

static void expect_refusal(const void *pickle, size_t len, const char *want) {
    dz_error err = {0};
    dz_pickle p;
    uint8_t *copy = malloc(len ? len : 1); /* of the exact size, for the sanitizer */
    assert_non_null(copy);
    if (len) memcpy(copy, pickle, len);
    dz_rc rc = dz_unpickle("t.bin: data.pkl", copy, len, &p, &err);
    free(copy);
    assert_int_equal(rc, DZ_EFAIL);
    if (!strstr(err.text, want)) fail_msg("'%s' does not say '%s'", err.text, want);
}

static void test_a_foreign_global_is_refused_by_its_name(void **state) {
    (void)state;
    expect_refusal(P("\x80\x02"
                     "cos\nsystem\n(X\x04\x00\x00\x00true\x85R."),
                   "t.bin: data.pkl: global 'os.system' is not allowed");
    expect_refusal(P("\x80\x04\x8c\x05posix\x8c\x06system\x93."), "global 'posix.system' is not allowed");
    expect_refusal(P("\x80\x02"
                     "cargparse\nNamespace\n)\x81."),
                   "global 'argparse.Namespace' is not allowed, since nothing is run: load the file in Python and save its state dict");
    expect_refusal(P("\x80\x02"
                     "c__builtin__\neval\n."),
                   "global '__builtin__.eval' is not allowed");
    expect_refusal(P("\x80\x02"
                     "cc\x1b[2J\nx\n."),
                   "global 'c?[2J.x' is not allowed"); /* nothing reaches the terminal */
    expect_refusal(P("\x80\x04N\x8c\x06system\x93."), "STACK_GLOBAL: a name that is no string");
}

static void test_reduce_calls_only_what_describes_a_tensor(void **state) {
    (void)state;
    expect_refusal(P("\x80\x02K\x01)R."), "REDUCE: calls what is no known function");
    expect_refusal(P("\x80\x02}}R."), "REDUCE: calls what is no known function");
    expect_refusal(P("\x80\x02"
                     "ctorch\nFloatStorage\n)R."),
                   "REDUCE: calls a type");
    expect_refusal(P("\x80\x02"
                     "ccollections\nOrderedDict\n]\x85R."),
                   "REDUCE: an OrderedDict made from arguments");
    expect_refusal(P("\x80\x02"
                     "ctorch._utils\n_rebuild_tensor_v2\n)R."),
                   "REDUCE: the parts of a tensor");
    expect_refusal(P("\x80\x02"
                     "ctorch._utils\n_rebuild_parameter\nNNN\x87R."),
                   "REDUCE: a parameter that is no tensor");
    expect_refusal(P("\x80\x02}]b."), "BUILD: sets the state of what is no dict");
    expect_refusal(P("\x80\x02]}b."), "BUILD: sets the state of what is no dict");
    expect_refusal(P("\x80\x02"
                     "ctorch._tensor\n_rebuild_from_type_v2\n("
                     "ctorch._tensor\n_rebuild_from_type_v2\n"
                     "ctorch\nTensor\n)}tR."),
                   "REDUCE: the parts of a tensor"); /* not by itself */
    expect_refusal(P("\x80\x02"
                     "ctorch._tensor\n_rebuild_from_type_v2\n("
                     "ctorch\nSize\n"
                     "ctorch\nSize\n)}tR."),
                   "REDUCE: a tensor of an unknown class");
    expect_refusal(P("\x80\x02"
                     "ctorch.nn.parameter\nParameter\n)\x81."),
                   "NEWOBJ: a parameter that is no tensor");
    expect_refusal(P("\x80\x02K\x01Q."), "BINPERSID: not ('storage', type, key, location, count)");
    expect_refusal(P("\x80\x02(NNNNNtQ."), "BINPERSID: not ('storage', type, key, location, count)");
}

static void test_every_other_opcode_is_refused_by_its_name(void **state) {
    (void)state;
    static const char known[] = "(.BCJKMNQRUXabc}ehj]qrst)uG\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x93\x94\x95\x96";
    size_t refused = 0;
    for (int op = 0; op < 256; op++) {
        uint8_t pickle[] = {0x80, 2, (uint8_t)op};
        if (memchr(known, op, sizeof known - 1)) continue;
        expect_refusal(pickle, sizeof pickle, "is not allowed");
        refused++;
    }
    assert_int_equal(refused, 256 - (sizeof known - 1));
    expect_refusal(P("\x80\x02ios\nsystem\n."), "opcode INST is not allowed");
    expect_refusal(P("\x80\x02N)\x81."), "NEWOBJ: calls what is no known function");
    expect_refusal(P("\x80\x02\x82\x01."), "opcode EXT1 is not allowed");
    expect_refusal(P("\x80\x02\xff."), "opcode 0xff is not allowed");
    expect_refusal(P("\x80\x00N."), "pickle protocol 0 is not supported");
    expect_refusal(P("\x80\x06N."), "pickle protocol 6 is not supported");
}

static void test_counts_beyond_the_bytes_and_stack_faults_are_found(void **state) {
    (void)state;
    expect_refusal(P(""), "cut short");
    expect_refusal(P("\x80\x02X\xff\xff\xff\xffhi."), "cut short");
    expect_refusal(P("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffhi."), "cut short");
    expect_refusal(P("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN."), "cut short");
    expect_refusal(P("\x80\x02\x8b\xff\xff\xff\x7fN."), "cut short");
    expect_refusal(P("\x80\x02r\xff\xff"), "cut short");
    expect_refusal(P("\x80\x02"
                     "ccollections\nOrdered"),
                   "cut short");
    expect_refusal(P("\x80\x02Nr\xff\xff\xff\xff."), "LONG_BINPUT: a memo number that is too large");
    expect_refusal(P("\x80\x02h\x05."), "BINGET: a memo number that was never set");
    expect_refusal(P("\x80\x02Nq\x05h\x04."), "BINGET: a memo number that was never set");
    expect_refusal(P("\x80\x02q\x00."), "BINPUT: the stack is empty");
    expect_refusal(P("\x80\x02N\x87."), "TUPLE3: the stack is empty");
    expect_refusal(P("\x80\x02N(\x85."), "TUPLE1: the stack is empty"); /* a mark is a floor */
    expect_refusal(P("\x80\x02t."), "TUPLE: no mark");
    expect_refusal(P("\x80\x02}(NNNu."), "SETITEMS: a key without a value");
    expect_refusal(P("\x80\x02](NNu."), "SETITEMS: sets an item of what is no dict");
    expect_refusal(P("\x80\x02}Ns."), "SETITEM: the stack is empty");
    expect_refusal(P("\x80\x02}Na."), "APPEND: appends to what is no list");
    expect_refusal(P("\x80\x02."), "the stack does not hold one value");
    expect_refusal(P("\x80\x02NN."), "the stack does not hold one value");
    expect_refusal(P("\x80\x02N(."), "the stack does not hold one value");
    expect_refusal(P("\x80\x02N.N"), "1 bytes follow its end");
}

static void test_bombs_stop_at_their_limits(void **state) {
    (void)state;
    dz_error err = {0};
    dz_pickle p;
    dz_buf b = {0};
    dz_buf_put(&b, P("\x80\x02N"), &err);
    for (int i = 0; i < 1000; i++) dz_buf_put(&b, "\x85", 1, &err); /* ((((...)))) */
    expect_refusal(b.data, b.len, "nested deeper than the 64");
    b.len = 3;
    for (int i = 0; i < 1000; i++) dz_buf_put(&b, "(", 1, &err);
    expect_refusal(b.data, b.len, "more than the 64 objects");
    b.len = 2;
    for (int i = 0; i < 1000; i++) dz_buf_put(&b, "]", 1, &err);
    for (int i = 0; i < 1000; i++) dz_buf_put(&b, "a", 1, &err);
    expect_refusal(b.data, b.len, "nested deeper than the 64");
    b.len = 2;
    for (size_t i = 0; i <= DZ_PICKLE_OBJECTS; i++) dz_buf_put(&b, "N", 1, &err);
    expect_refusal(b.data, b.len, "objects that are allowed");
    b.len = 2;
    dz_buf_put(&b, P("Nq\x00"), &err);
    for (size_t i = 0; i <= DZ_PICKLE_OBJECTS; i++) dz_buf_put(&b, "h\x00", 2, &err);
    expect_refusal(b.data, b.len, "objects that are allowed");
    assert_int_equal(dz_unpickle("t", b.data, (size_t)DZ_PICKLE_MAX + 1, &p, &err), DZ_EFAIL); /* not even looked at */
    assert_non_null(strstr(err.text, "are more than"));
    /* a billion laughs: 2^60 members, but only 60 tuples */
    dz_error none = {0};
    b.len = 2;
    dz_buf_put(&b, P("N"), &none);
    for (char i = 0; i < 60; i++) {
        char twice[] = {'q', i, 'h', i, '\x86'};
        dz_buf_put(&b, twice, sizeof twice, &none);
    }
    dz_buf_put(&b, ".", 1, &none);
    assert_int_equal(dz_unpickle("t", b.data, b.len, &p, &none), DZ_OK);
    assert_true(p.nvalues <= 61 && p.nmembers == 120);
    dz_pickle_free(&p);
    dz_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_foreign_global_is_refused_by_its_name),
        cmocka_unit_test(test_reduce_calls_only_what_describes_a_tensor),
        cmocka_unit_test(test_every_other_opcode_is_refused_by_its_name),
        cmocka_unit_test(test_counts_beyond_the_bytes_and_stack_faults_are_found),
        cmocka_unit_test(test_bombs_stop_at_their_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
