#include "checkpoint/torch/pickle_names.h"

#include <stdio.h>
#include <string.h>

#define DICT(name, is)                                                                                                                     \
    { name, DZ_GLOBAL_DICT, NULL, is, NULL }
#define PLAIN(name, is)                                                                                                                    \
    { name, DZ_GLOBAL_PLAIN, NULL, is, NULL }
#define STORAGE(name, dtype)                                                                                                               \
    { "torch." name, DZ_GLOBAL_STORAGE, dtype, NULL, NULL }
#define DTYPE(name, dtype)                                                                                                                 \
    { "torch." name, DZ_GLOBAL_DTYPE, dtype, NULL, NULL }
#define NO_STORAGE(name, is, save)                                                                                                         \
    { "torch." name, DZ_GLOBAL_STORAGE, NULL, is, save }
#define NO_DTYPE(name, is, save)                                                                                                           \
    { "torch." name, DZ_GLOBAL_DTYPE, NULL, is, save }
#define OTHER(name, is, save)                                                                                                              \
    { name, DZ_GLOBAL_OTHER_TENSOR, NULL, is, save }
#define QUANTISED "a quantised tensor (torch.quantize_per_tensor)"
#define QUANTISED_SAVE "its dequantize(), or its int_repr() and scale"
#define BITS "of a type without arithmetic"
#define BITS_SAVE "its view(torch.uint8)"

/* The first that fits is taken: packages come last. */
static const dz_global GLOBALS[] = {
    DICT("collections.OrderedDict", "a dict"),
    DICT("collections.Counter", "a Counter"),
    DICT("collections.defaultdict", "a defaultdict"),
    {"torch._utils._rebuild_tensor", DZ_GLOBAL_TENSOR_V1, NULL, NULL, NULL},
    {"torch._utils._rebuild_tensor_v2", DZ_GLOBAL_TENSOR_V2, NULL, NULL, NULL},
    {"torch._utils._rebuild_tensor_v3", DZ_GLOBAL_TENSOR_V3, NULL, NULL, NULL},
    {"torch._utils._rebuild_parameter", DZ_GLOBAL_PARAMETER, NULL, NULL, NULL},
    {"torch._utils._rebuild_parameter_with_state", DZ_GLOBAL_PARAMETER, NULL, NULL, NULL},
    {"torch._tensor._rebuild_from_type_v2", DZ_GLOBAL_FROM_TYPE, NULL, NULL, NULL},
    {"torch.Tensor", DZ_GLOBAL_TENSOR_TYPE, NULL, NULL, NULL},
    {"torch.nn.parameter.Parameter", DZ_GLOBAL_TENSOR_TYPE, NULL, NULL, NULL},
    {"torch.nn.parameter.Buffer", DZ_GLOBAL_TENSOR_TYPE, NULL, NULL, NULL},
    STORAGE("DoubleStorage", "F64"),
    STORAGE("FloatStorage", "F32"),
    STORAGE("HalfStorage", "F16"),
    STORAGE("BFloat16Storage", "BF16"),
    STORAGE("LongStorage", "I64"),
    STORAGE("IntStorage", "I32"),
    STORAGE("ShortStorage", "I16"),
    STORAGE("CharStorage", "I8"),
    STORAGE("ByteStorage", "U8"),
    STORAGE("BoolStorage", "BOOL"),
    STORAGE("ComplexFloatStorage", "C64"),
    NO_STORAGE("ComplexDoubleStorage", "complex128", "its to(torch.complex64), or torch.view_as_real() of it"),
    NO_STORAGE("QInt8Storage", QUANTISED, QUANTISED_SAVE),
    NO_STORAGE("QUInt8Storage", QUANTISED, QUANTISED_SAVE),
    NO_STORAGE("QInt32Storage", QUANTISED, QUANTISED_SAVE),
    NO_STORAGE("QUInt4x2Storage", QUANTISED, QUANTISED_SAVE),
    NO_STORAGE("QUInt2x4Storage", QUANTISED, QUANTISED_SAVE),
    STORAGE("UntypedStorage", NULL),
    STORAGE("storage.UntypedStorage", NULL),
    STORAGE("storage._UntypedStorage", NULL),
    DTYPE("float64", "F64"),
    DTYPE("float32", "F32"),
    DTYPE("float16", "F16"),
    DTYPE("bfloat16", "BF16"),
    DTYPE("float8_e4m3fn", "F8_E4M3"),
    DTYPE("float8_e5m2", "F8_E5M2"),
    DTYPE("float8_e4m3fnuz", "F8_E4M3FNUZ"),
    DTYPE("float8_e5m2fnuz", "F8_E5M2FNUZ"),
    DTYPE("float8_e8m0fnu", "F8_E8M0"),
    DTYPE("complex64", "C64"),
    DTYPE("int64", "I64"),
    DTYPE("int32", "I32"),
    DTYPE("int16", "I16"),
    DTYPE("int8", "I8"),
    DTYPE("uint64", "U64"),
    DTYPE("uint32", "U32"),
    DTYPE("uint16", "U16"),
    DTYPE("uint8", "U8"),
    DTYPE("bool", "BOOL"),
    DTYPE("float4_e2m1fn_x2", "F4"), /* two to an element: its last dimension is doubled */
    NO_DTYPE("complex128", "complex128", "its to(torch.complex64), or torch.view_as_real() of it"),
    NO_DTYPE("complex32", "complex32", "its to(torch.complex64), or torch.view_as_real() of it"),
    NO_DTYPE("bits8", BITS, BITS_SAVE),
    NO_DTYPE("bits16", BITS, BITS_SAVE),
    NO_DTYPE("bits1x8", BITS, BITS_SAVE),
    NO_DTYPE("bits2x4", BITS, BITS_SAVE),
    NO_DTYPE("bits4x2", BITS, BITS_SAVE),
    NO_DTYPE("qint8", QUANTISED, QUANTISED_SAVE),
    NO_DTYPE("quint8", QUANTISED, QUANTISED_SAVE),
    NO_DTYPE("qint32", QUANTISED, QUANTISED_SAVE),
    NO_DTYPE("quint4x2", QUANTISED, QUANTISED_SAVE),
    NO_DTYPE("quint2x4", QUANTISED, QUANTISED_SAVE),
    PLAIN("builtins.set", "a set"),
    PLAIN("builtins.frozenset", "a set"),
    PLAIN("builtins.complex", "a complex number"),
    PLAIN("builtins.bytes", "bytes"),
    PLAIN("builtins.bytearray", "a bytearray"),
    PLAIN("builtins.slice", "a slice"),
    PLAIN("builtins.Ellipsis", "an ellipsis"),
    PLAIN("builtins.int", "a type"),
    PLAIN("builtins.float", "a type"),
    PLAIN("builtins.bool", "a type"),
    PLAIN("builtins.str", "a type"),
    PLAIN("builtins.list", "a type"),
    PLAIN("builtins.dict", "a type"),
    PLAIN("builtins.tuple", "a type"),
    PLAIN("_codecs.encode", "bytes"),
    PLAIN("torch.Size", "a torch.Size"),
    PLAIN("torch.device", "a torch.device"),
    PLAIN("torch.serialization._get_layout", "a layout"),
    PLAIN("torch.per_tensor_affine", "a qscheme"),
    PLAIN("torch.per_tensor_symmetric", "a qscheme"),
    PLAIN("torch.per_channel_affine", "a qscheme"),
    PLAIN("torch.per_channel_symmetric", "a qscheme"),
    PLAIN("torch.per_channel_affine_float_qparams", "a qscheme"),
    OTHER("torch._utils._rebuild_qtensor", QUANTISED, QUANTISED_SAVE),
    OTHER("torch._utils._rebuild_sparse_tensor", "a sparse tensor", "its to_dense()"),
    OTHER("torch._utils._rebuild_sparse_csr_tensor", "a sparse tensor", "its to_dense()"),
    OTHER("torch._utils._rebuild_nested_tensor", "a nested tensor", "its unbind(), each part by a name of its own"),
    OTHER("torch.nested.*", "a nested tensor", "its unbind(), each part by a name of its own"),
    OTHER("torch._utils._rebuild_meta_tensor_no_storage", "on the meta device, without values", "the model after its weights are loaded"),
    OTHER("torch._utils._rebuild_wrapper_subclass", "of a subclass of Tensor", "its values as a plain tensor"),
    OTHER("torch._utils._rebuild_device_tensor_from_numpy", "on a device of its own", "its cpu()"),
    OTHER("torch._utils._rebuild_device_tensor_from_cpu_tensor", "on a device of its own", "its cpu()"),
    OTHER("torch.distributed.*", "one rank's part of a distributed tensor", "its full_tensor(), or the model's full state dict"),
    OTHER("torchao.*", "quantised by torchao", "its dequantize(), or the model as safetensors"),
    OTHER("torch._view.*", "a conjugated or negated view", "its resolve_conj().resolve_neg()"), /* not a global: marked by metadata */
    PLAIN("torch.nn.*", "a module (torch.nn)"),
    PLAIN("torch.*", "an object of torch"),
};

enum { NGLOBALS = sizeof GLOBALS / sizeof *GLOBALS };
_Static_assert(NGLOBALS < 256, "a value has a byte for it");

/* NAME.*: all of the package NAME, modules within it included. */
static int is_of_package(const char *known, size_t len, const uint8_t *module, size_t module_len) {
    size_t package = len - 2;
    return len > 2 && strcmp(known + package, ".*") == 0 && module_len >= package && memcmp(known, module, package) == 0 &&
           (module_len == package || module[package] == '.');
}

int dz_global_find(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len) {
    static const char old[] = "__builtin__", now[] = "builtins";
    if (module_len == sizeof old - 1 && memcmp(module, old, module_len) == 0) {
        module = (const uint8_t *)now;
        module_len = sizeof now - 1;
    }
    for (size_t i = 0; i < NGLOBALS; i++) {
        const char *known = GLOBALS[i].name, *dot = strrchr(known, '.');
        if (is_of_package(known, strlen(known), module, module_len)) return (int)i;
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
