//! The C header of an object file.

use crate::error::CodegenError;
use crate::object::{buffer_bytes, constant};
use rabot_kernel::{Plan, Port};
use rabot_target::Profile;
use std::fmt::Write;

/// Text of the header. `name` is a C identifier.
pub(crate) fn header_text(
    plan: &Plan,
    profile: &Profile,
    name: &str,
    arena_bytes: usize,
) -> Result<String, CodegenError> {
    let upper = name.to_ascii_uppercase();
    let mut text = format!(
        "/* Model `{}`, compiled by rabot for {}. */\n\
         #ifndef RABOT_{upper}_H\n#define RABOT_{upper}_H\n\n\
         /* Bytes of working memory that a run needs. */\n\
         #define RABOT_{upper}_ARENA_BYTES {arena_bytes}\n\
         #define RABOT_{upper}_INPUTS {}\n#define RABOT_{upper}_OUTPUTS {}\n",
        comment(&plan.name),
        profile.name,
        plan.inputs.len(),
        plan.outputs.len()
    );
    ports(&mut text, plan, "inputs", &plan.inputs)?;
    ports(&mut text, plan, "outputs", &plan.outputs)?;
    text.push_str(
        "\n/*\n * Runs the model once, in the thread that calls it. Runs at the same time need an arena each.\n \
         * arena: that many bytes, aligned to 64. Tensors are dense and row-major; alignment is not needed.\n \
         * Returns 0; 1 if an index was out of range; 2 if an integer was divided by zero.\n */\n\
         #ifdef __cplusplus\nextern \"C\"\n#endif\n",
    );
    write(
        &mut text,
        format_args!(
            "int rabot_{name}_run(const void *const *inputs, void *const *outputs, void *arena);\n\n#endif\n"
        ),
    );
    Ok(text)
}

fn ports(text: &mut String, plan: &Plan, list: &str, ports: &[Port]) -> Result<(), CodegenError> {
    text.push('\n');
    for (index, port) in ports.iter().enumerate() {
        let shape = port
            .shape
            .iter()
            .map(|dim| constant(dim, || format!("the shape of `{}`", port.name)).map(|d| d.to_string()))
            .collect::<Result<Vec<_>, _>>()?
            .join(",");
        let bytes = buffer_bytes(plan, port.buffer)?;
        let (name, dtype) = (comment(&port.name), port.dtype);
        write(text, format_args!("/* {list}[{index}]: {name}: {dtype}[{shape}], {bytes} bytes */\n"));
    }
    Ok(())
}

fn write(text: &mut String, line: std::fmt::Arguments) {
    // Writing to a string does not fail.
    text.write_fmt(line).unwrap_or_default();
}

/// Text that cannot end a comment.
fn comment(text: &str) -> String {
    text.replace("*/", "* /").replace("/*", "/ *").replace(['\n', '\r'], " ")
}
