#include "checkpoint/torch/pickle_names.h"

#include <stdio.h>
#include <string.h>

static const dz_global GLOBALS[] = {
    {"collections.OrderedDict", DZ_GLOBAL_ORDERED_DICT, NULL},
    {"torch._utils._rebuild_tensor_v2", DZ_GLOBAL_TENSOR_V2, NULL},
    {"torch._utils._rebuild_tensor_v3", DZ_GLOBAL_TENSOR_V3, NULL},
    {"torch._utils._rebuild_parameter", DZ_GLOBAL_PARAMETER, NULL},
    {"torch.DoubleStorage", DZ_GLOBAL_STORAGE, "F64"},
    {"torch.FloatStorage", DZ_GLOBAL_STORAGE, "F32"},
    {"torch.HalfStorage", DZ_GLOBAL_STORAGE, "F16"},
    {"torch.BFloat16Storage", DZ_GLOBAL_STORAGE, "BF16"},
    {"torch.LongStorage", DZ_GLOBAL_STORAGE, "I64"},
    {"torch.IntStorage", DZ_GLOBAL_STORAGE, "I32"},
    {"torch.ShortStorage", DZ_GLOBAL_STORAGE, "I16"},
    {"torch.CharStorage", DZ_GLOBAL_STORAGE, "I8"},
    {"torch.ByteStorage", DZ_GLOBAL_STORAGE, "U8"},
    {"torch.BoolStorage", DZ_GLOBAL_STORAGE, "BOOL"},
    {"torch.ComplexFloatStorage", DZ_GLOBAL_STORAGE, "C64"}, /* ComplexDoubleStorage: safetensors has no such type */
    {"torch.UntypedStorage", DZ_GLOBAL_STORAGE, NULL},
    {"torch.storage.UntypedStorage", DZ_GLOBAL_STORAGE, NULL},
    {"torch.storage._UntypedStorage", DZ_GLOBAL_STORAGE, NULL}, /* torch 1.12 and 1.13 */
    {"torch.float64", DZ_GLOBAL_DTYPE, "F64"},
    {"torch.float32", DZ_GLOBAL_DTYPE, "F32"},
    {"torch.float16", DZ_GLOBAL_DTYPE, "F16"},
    {"torch.bfloat16", DZ_GLOBAL_DTYPE, "BF16"},
    {"torch.float8_e4m3fn", DZ_GLOBAL_DTYPE, "F8_E4M3"},
    {"torch.float8_e5m2", DZ_GLOBAL_DTYPE, "F8_E5M2"},
    {"torch.float8_e4m3fnuz", DZ_GLOBAL_DTYPE, "F8_E4M3FNUZ"},
    {"torch.float8_e5m2fnuz", DZ_GLOBAL_DTYPE, "F8_E5M2FNUZ"},
    {"torch.float8_e8m0fnu", DZ_GLOBAL_DTYPE, "F8_E8M0"},
    {"torch.complex64", DZ_GLOBAL_DTYPE, "C64"},
    {"torch.int64", DZ_GLOBAL_DTYPE, "I64"},
    {"torch.int32", DZ_GLOBAL_DTYPE, "I32"},
    {"torch.int16", DZ_GLOBAL_DTYPE, "I16"},
    {"torch.int8", DZ_GLOBAL_DTYPE, "I8"},
    {"torch.uint64", DZ_GLOBAL_DTYPE, "U64"},
    {"torch.uint32", DZ_GLOBAL_DTYPE, "U32"},
    {"torch.uint16", DZ_GLOBAL_DTYPE, "U16"},
    {"torch.uint8", DZ_GLOBAL_DTYPE, "U8"},
    {"torch.bool", DZ_GLOBAL_DTYPE, "BOOL"},
};

int dz_global_find(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len) {
    for (size_t i = 0; i < sizeof GLOBALS / sizeof *GLOBALS; i++) {
        const char *known = GLOBALS[i].name, *dot = strrchr(known, '.');
        if ((size_t)(dot - known) == module_len && memcmp(known, module, module_len) == 0 && strlen(dot + 1) == name_len &&
            memcmp(dot + 1, name, name_len) == 0)
            return (int)i;
    }
    return -1;
}

const dz_global *dz_global_at(int number) { return &GLOBALS[number]; }

static const char *const OPCODES[256] = {
    ['('] = "MARK",
    ['.'] = "STOP",
    ['0'] = "POP",
    ['1'] = "POP_MARK",
    ['2'] = "DUP",
    ['F'] = "FLOAT",
    ['I'] = "INT",
    ['J'] = "BININT",
    ['K'] = "BININT1",
    ['L'] = "LONG",
    ['M'] = "BININT2",
    ['N'] = "NONE",
    ['P'] = "PERSID",
    ['Q'] = "BINPERSID",
    ['R'] = "REDUCE",
    ['S'] = "STRING",
    ['T'] = "BINSTRING",
    ['U'] = "SHORT_BINSTRING",
    ['V'] = "UNICODE",
    ['X'] = "BINUNICODE",
    ['a'] = "APPEND",
    ['b'] = "BUILD",
    ['c'] = "GLOBAL",
    ['d'] = "DICT",
    ['}'] = "EMPTY_DICT",
    ['e'] = "APPENDS",
    ['g'] = "GET",
    ['h'] = "BINGET",
    ['i'] = "INST",
    ['j'] = "LONG_BINGET",
    ['l'] = "LIST",
    [']'] = "EMPTY_LIST",
    ['o'] = "OBJ",
    ['p'] = "PUT",
    ['q'] = "BINPUT",
    ['r'] = "LONG_BINPUT",
    ['s'] = "SETITEM",
    ['t'] = "TUPLE",
    [')'] = "EMPTY_TUPLE",
    ['u'] = "SETITEMS",
    ['G'] = "BINFLOAT",
    ['B'] = "BINBYTES",
    ['C'] = "SHORT_BINBYTES",
    [0x80] = "PROTO",
    [0x81] = "NEWOBJ",
    [0x82] = "EXT1",
    [0x83] = "EXT2",
    [0x84] = "EXT4",
    [0x85] = "TUPLE1",
    [0x86] = "TUPLE2",
    [0x87] = "TUPLE3",
    [0x88] = "NEWTRUE",
    [0x89] = "NEWFALSE",
    [0x8a] = "LONG1",
    [0x8b] = "LONG4",
    [0x8c] = "SHORT_BINUNICODE",
    [0x8d] = "BINUNICODE8",
    [0x8e] = "BINBYTES8",
    [0x8f] = "EMPTY_SET",
    [0x90] = "ADDITEMS",
    [0x91] = "FROZENSET",
    [0x92] = "NEWOBJ_EX",
    [0x93] = "STACK_GLOBAL",
    [0x94] = "MEMOIZE",
    [0x95] = "FRAME",
    [0x96] = "BYTEARRAY8",
    [0x97] = "NEXT_BUFFER",
    [0x98] = "READONLY_BUFFER",
};

const char *dz_opcode_name(uint8_t opcode, char text[8]) {
    if (OPCODES[opcode]) return OPCODES[opcode];
    snprintf(text, 8, "0x%02x", opcode);
    return text;
}
