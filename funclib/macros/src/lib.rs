//! `#[nightcore::function]`: turns one Rust function into the exports of interface v2.
//!
//! The function itself stays as written, so tests and other code may still call it. Beside it the
//! attribute puts two C functions, `nightcore_abi_version` and `nightcore_call`; the latter does
//! nothing but hand the function to `nightcore::edge::enter`, where all the work is ordinary code.
//! In test builds the symbols are not exported, so one test binary can hold many functions.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Type, parse_macro_input};

/// Makes a function callable by the runtime. See the documentation of the `nightcore` crate for
/// the arguments and results it may have.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemFn);
    if !arguments.is_empty() {
        let message = "#[nightcore::function] takes no arguments";
        return Error::new(item.sig.ident.span(), message).into_compile_error().into();
    }
    expand(&item).unwrap_or_else(Error::into_compile_error).into()
}

/// One argument of the user's function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Argument {
    Context,
    Input,
}

fn expand(item: &ItemFn) -> Result<Tokens, Error> {
    let arguments = check(item)?;
    let name = &item.sig.ident;
    let entry = format_ident!("__nightcore_call_{name}");
    let passed = arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Input => quote!(input),
    });
    let input = arguments
        .contains(&Argument::Input)
        .then(|| quote!(let input = ::nightcore::FromRequest::from_request(request)?;));
    Ok(quote! {
        #item

        #[doc(hidden)]
        #[allow(
            dead_code,
            missing_docs,
            non_snake_case,
            unused_variables,
            clippy::missing_safety_doc
        )]
        #[cfg_attr(not(test), unsafe(export_name = "nightcore_call"))]
        pub unsafe extern "C" fn #entry(
            _worker: *mut ::core::ffi::c_void,
            context: *mut ::nightcore::abi::RawContext,
            host: *const ::nightcore::abi::Host,
            input: *const u8,
            input_length: usize,
        ) -> ::core::ffi::c_int {
            let body = |context: &mut ::nightcore::Context,
                        request: ::nightcore::Request<'_>,
                        output: ::nightcore::Output<'_>|
             -> ::core::result::Result<(), ::nightcore::Error> {
                #input
                #[allow(clippy::unit_arg)]
                ::nightcore::Reply::reply(#name(#(#passed),*), output)
            };
            // SAFETY: the arguments are passed on as they came; the runtime calls this function
            // as nightcore.h promises, which is what `enter` asks for.
            unsafe { ::nightcore::edge::enter(context, host, input, input_length, body) }
        }

        #[allow(dead_code, missing_docs)]
        const _: () = {
            #[doc(hidden)]
            #[cfg_attr(not(test), unsafe(export_name = "nightcore_abi_version"))]
            pub extern "C" fn nightcore_abi_version() -> u32 {
                ::nightcore::abi::VERSION
            }
        };
    })
}

/// Refuses what cannot be called through the interface, naming the place.
fn check(item: &ItemFn) -> Result<Vec<Argument>, Error> {
    let signature = &item.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(token.span(), "a function runs on its own thread: drop `async`"));
    }
    if let Some(token) = &signature.unsafety {
        return Err(Error::new(token.span(), "the runtime only calls safe functions"));
    }
    if signature.generics.type_params().next().is_some() {
        return Err(Error::new(
            signature.generics.span(),
            "the runtime cannot choose type parameters",
        ));
    }
    let mut arguments = Vec::with_capacity(2);
    for argument in &signature.inputs {
        let FnArg::Typed(typed) = argument else {
            return Err(Error::new(
                argument.span(),
                "a method cannot be a function of the runtime",
            ));
        };
        let kind = if is_context(&typed.ty) { Argument::Context } else { Argument::Input };
        if arguments.contains(&kind) {
            let message =
                "expected at most one `&Context` and one input (`&[u8]`, `&str`, `Request`)";
            return Err(Error::new(typed.ty.span(), message));
        }
        arguments.push(kind);
    }
    Ok(arguments)
}

/// Whether `ty` is a reference to something called `Context`.
fn is_context(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Context")
}
